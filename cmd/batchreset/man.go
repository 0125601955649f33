package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"batchreset/cmd/batchreset/terminal"
)

// newManCommand is for whoever makes packages: it is in no list of commands.
func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Hidden: true,
		Short:  "Write a manual page for each command",
		Long: `Writes a page for man(1) for each command, and one for each topic of the help, into a
directory that is there. Their date is SOURCE_DATE_EPOCH, or now.`,
		Example: "  batchreset man /usr/local/share/man/man1",
		Args:    terminal.ArgsFromUsage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return terminal.WithCode(terminal.ExitOther, writePages(cmd.Root(), args[0]))
		},
	}
}

func writePages(root *cobra.Command, directory string) error {
	header := doc.GenManHeader{Section: "1", Source: "batchreset " + terminal.Version(), Manual: "batchreset"}
	var topics []*cobra.Command
	forMan(root, &topics)
	if err := doc.GenManTree(root, &header, directory); err != nil {
		return err
	}
	for _, topic := range topics { // which the tree leaves out
		page, err := os.Create(directory + "/" + strings.ReplaceAll(topic.CommandPath(), " ", "-") + ".1")
		if err != nil {
			return err
		}
		header.Title = "" // of the topic before
		err = doc.GenMan(topic, &header, page)
		if closed := page.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return fmt.Errorf("%s: %w", page.Name(), err)
		}
	}
	return nil
}

// forMan has the texts of cmd and of those below it look in a page as they do in a terminal. It collects the
// topics among them.
func forMan(cmd *cobra.Command, topics *[]*cobra.Command) {
	cmd.Long, cmd.DisableAutoGenTag = asMarkdown(cmd.Long), true
	if cmd.IsAdditionalHelpTopicCommand() && cmd.Name() != "help" {
		*topics = append(*topics, cmd)
	}
	for _, sub := range cmd.Commands() {
		forMan(sub, topics)
	}
}

// asMarkdown is a text of a command in the language that pages are made of: lines that begin with two spaces, and
// those of tables, stay as they are.
func asMarkdown(text string) string {
	var b strings.Builder
	literal := false
	for line := range strings.Lines(text) {
		blank := strings.TrimSpace(line) == ""
		if kept := strings.HasPrefix(line, "  "); kept != literal && !blank {
			if kept && !strings.HasSuffix(b.String(), "\n\n") {
				b.WriteString("\n")
			}
			b.WriteString("```\n")
			literal = kept
		}
		if !literal {
			line = special.Replace(line)
		}
		b.WriteString(line)
	}
	if literal {
		b.WriteString("\n```\n")
	}
	return b.String()
}

// special has characters that mean something in Markdown stand for themselves.
var special = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `_`, `\_`, `<`, `\<`, "`", "\\`")
