package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
)

// TestEverySettingIsDocumented keeps the table of deploy/SETTINGS.md true. To write
// it anew: UPDATE_SETTINGS=1 go test ./cmd/batchreset -run EverySetting
func TestEverySettingIsDocumented(t *testing.T) {
	const begin, end = "<!-- settings: written by TestEverySettingIsDocumented -->\n", "<!-- settings end -->\n"
	const path = "../../deploy/SETTINGS.md"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(b), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has lost the marks around its table", path)
	}
	document := before + begin + settingsTable() + end + after
	if document == string(b) {
		return
	}
	if os.Getenv("UPDATE_SETTINGS") == "" {
		t.Fatal("deploy/SETTINGS.md is not what the flags say: UPDATE_SETTINGS=1 go test ./cmd/batchreset -run EverySetting")
	}
	if err := os.WriteFile(path, []byte(document), 0o644); err != nil { //nolint:gosec // documents are for everyone
		t.Fatal(err)
	}
}

func settingsTable() string {
	root := newRootCommand(&terminal.Streams{})
	var names []string
	used := map[string][]string{}
	flags := map[string]*pflag.Flag{}
	for _, name := range []string{"api", "worker", "dev"} {
		cmd, _, err := root.Find([]string{name})
		if err != nil {
			panic(err)
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if flags[f.Name] == nil {
				names = append(names, f.Name)
				flags[f.Name] = f
			}
			used[f.Name] = append(used[f.Name], commandDefault(cmd, f))
		})
	}
	var table strings.Builder
	table.WriteString("| flag | environment | used by (default) | what it does |\n|---|---|---|---|\n")
	for _, name := range names {
		_, usage := pflag.UnquoteUsage(flags[name])
		fmt.Fprintf(&table, "| `--%s` | `%s` | %s | %s |\n", name, terminal.EnvironmentVariable(name),
			strings.Join(used[name], ", "), strings.ReplaceAll(usage, "|", `\|`))
	}
	return table.String()
}

func commandDefault(cmd *cobra.Command, f *pflag.Flag) string {
	if f.DefValue == "" {
		return cmd.Name()
	}
	return fmt.Sprintf("%s (`%s`)", cmd.Name(), f.DefValue)
}
