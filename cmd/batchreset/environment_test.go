package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
)

// TestTheCommandLineWins has variables say, each in another way, what the command line says
// otherwise.
func TestTheCommandLineWins(t *testing.T) {
	t.Parallel()
	s := calltest.NewService(t)
	for range 3 {
		s.Add("failed-1", "phone-2")
	}
	s.Jobs[0].Advance(0)
	token := terminaltest.File(t, calltest.Token+"\n")
	list := terminaltest.File(t, "phone-8\nphone-9\n")
	redisURL := terminaltest.File(t, "redis://127.0.0.1:1\n")
	const noRedis = "cannot reach Redis"
	for _, row := range []struct{ variable, value, args, want string }{
		{"TOKEN", "wrong", "jobs --token-file " + token, ""},
		{"TOKEN_FILE", "/nowhere", "jobs --token " + calltest.Token, ""},
		{"TENANT", "acme", "halt --all --redis redis://127.0.0.1:1", noRedis},
		{"ALL", "true", "halt --tenant acme --redis redis://127.0.0.1:1", noRedis},
		{"TENANT", "acme", "resume --all --redis redis://127.0.0.1:1", noRedis},
		{"OWN", "true", "resume --all --redis redis://127.0.0.1:1", noRedis},
		{"TENANT", "acme", "tenant limit --all --max-failures 1 --redis redis://127.0.0.1:1", noRedis},
		{"REDIS_FILE", "/nowhere", "fleet list --redis redis://127.0.0.1:1", "--redis: " + noRedis},
		{"REDIS", "no URL", "fleet list --redis-file " + redisURL, "--redis-file: " + noRedis},
		{"REDIS_FILE", "/nowhere", "api --redis redis://127.0.0.1:1", "--redis: " + noRedis},
		{"WEBHOOK_URL", "http://127.0.0.1:9", "dev --redis redis://127.0.0.1:1", noRedis},
		{"DRIVER_URL", "https://phones.example/{instance_id}", "worker --driver simulator --redis redis://127.0.0.1:1", noRedis},
		{"LIMIT", "1", "jobs --all --token " + calltest.Token, ""},
		{"ALL", "true", "jobs --limit 1 --token " + calltest.Token, ""},
		{"OUTPUT", "json", "submit phone-1 --result - --token " + calltest.Token, ""},
		{"FILE", list, "submit phone-1 --token " + calltest.Token, ""},
		{"WAIT", "true", "submit phone-1 --dry-run --token " + calltest.Token, "no dry run"},
		{"RESULT", "/nowhere/x.csv", "submit phone-1 --dry-run --token " + calltest.Token, "no dry run"},
		{"ALL", "true", "cancel " + job2 + " --token " + calltest.Token, ""},
		{"LABEL", "site=7", "cancel " + "00000000000000000000000000000003" + " --token " + calltest.Token, ""},
		{"ALL", "true", "cancel --instance phone-none --token " + calltest.Token, ""},
		{"FAILED_FROM", "/nowhere", "retry " + job1 + " --token " + calltest.Token, ""},
		{"RESULT", "/nowhere/x.csv", "retry " + job1 + " --token " + calltest.Token, ""},
		{"STATE", "failed", "retry --failed-from /nowhere.csv --token " + calltest.Token, "--failed-from /nowhere.csv: "},
	} {
		t.Run(row.variable+" and "+row.args, func(t *testing.T) {
			environment := map[string]string{"BATCHRESET_" + row.variable: row.value, "BATCHRESET_SERVER": s.URL}
			r := command(t, environment, strings.Fields(row.args)...)
			if row.want == "" && r.Err != nil {
				t.Errorf("%v", r.Err)
			} else if row.want != "" && row.want != "no dry run" {
				r.WantError(t, row.want)
			} else if row.want != "" && strings.Contains(r.Err.Error(), "--dry-run") {
				t.Errorf("%v", r.Err)
			}
		})
	}
	for _, batch := range s.Sent() {
		if strings.Join(batch, " ") != "phone-1" {
			t.Errorf("%v was sent, which no command line names", batch)
		}
	}
	for _, n := range []int{1, 2} {
		if state := s.Jobs[n].State; state != "cancelled" {
			t.Errorf("job %d is %s, and was named on a command line", n, state)
		}
	}
}

func TestADryRunOfTheEnvironmentStaysOne(t *testing.T) {
	s := calltest.NewService(t)
	environment := map[string]string{"BATCHRESET_SERVER": s.URL, "BATCHRESET_TOKEN": calltest.Token, "BATCHRESET_DRY_RUN": "true"}
	command(t, environment, "submit", "phone-1", "--wait").WantError(t, "--dry-run")
	if sent := s.Sent(); len(sent) > 0 {
		t.Errorf("%v was sent", sent)
	}
}

func TestVariablesThatContradictEachOther(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		args        string
		environment map[string]string
		want        string
	}{
		{"jobs", map[string]string{"BATCHRESET_TOKEN": "a", "BATCHRESET_TOKEN_FILE": "b"}, "BATCHRESET_TOKEN and BATCHRESET_TOKEN_FILE do not go together"},
		{"halt", map[string]string{"BATCHRESET_TENANT": "a", "BATCHRESET_ALL": "true"}, "BATCHRESET_ALL and BATCHRESET_TENANT do not go together"},
		{"fleet list", map[string]string{"BATCHRESET_REDIS": "a", "BATCHRESET_REDIS_FILE": "b"}, "BATCHRESET_REDIS and BATCHRESET_REDIS_FILE do not go together"},
		{"halt --tenant acme --all", nil, "--all and --tenant do not go together"},
		{"fleet list --redis a --redis-file b", nil, "--redis and --redis-file do not go together"},
		{"halt --redis redis://127.0.0.1:1", map[string]string{"BATCHRESET_TENANT": "a", "BATCHRESET_ALL": "false"}, "cannot reach Redis"},
	} {
		command(t, row.environment, strings.Fields(row.args)...).WantError(t, row.want)
	}
}

// eachCommand calls do with every command there is.
func eachCommand(do func(cmd *cobra.Command)) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		do(cmd)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(&terminal.Streams{}))
}

func TestOneLetterIsOneFlagEverywhere(t *testing.T) {
	want := map[string]string{"f": "file", "l": "label", "o": "output", "q": "quiet", "s": "state", "w": "wait", "y": "yes", "L": "limit"}
	letters := map[string]string{}
	for letter, name := range want {
		letters[name] = letter
	}
	found := map[string]string{}
	eachCommand(func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if cmd.Name() == "dev" && f.Name == "state" { // a directory, which has no letter
				return
			}
			if f.Shorthand != letters[f.Name] {
				t.Errorf("%s: --%s is -%s, want -%s", cmd.CommandPath(), f.Name, f.Shorthand, letters[f.Name])
			}
			if f.Shorthand != "" {
				found[f.Shorthand] = f.Name
			}
		})
	})
	if !maps.Equal(found, want) {
		t.Errorf("there are %v", found)
	}
}

// What no flag of a kind takes is refused in words, from wherever it is, and no error tells which function of Go did not take it.
func TestAWrongValueIsToldWhatItMustBe(t *testing.T) {
	nonsense, told := "nonsense", map[string]string{
		"bool": "it must be true or false", "int": "it must be a whole number", "int64": "it must be a whole number", "float64": "it must be a number",
		"intSlice": "it must be whole numbers, with commas between them",
		"duration": "it must be a time with its unit, such as 90s or 1h30m",
	}
	seen := map[string]bool{}
	check := func(r terminaltest.Result, args []string, kind string) {
		t.Helper()
		if r.Code != 64 || !strings.Contains(r.Said, told[kind]) || strings.Contains(r.Said, "strconv.") || strings.Contains(r.Said, "time: ") {
			t.Errorf("%q: %d %s", args, r.Code, r.Said)
		}
	}
	eachCommand(func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			kind := f.Value.Type()
			if !cmd.Runnable() || f.Name == "help" || f.Value.Set(nonsense) == nil {
				return
			}
			args := append(slices.Clone(path), "--"+f.Name+"="+nonsense)
			check(command(t, nil, args...), args, kind)
			if !seen[kind] {
				variables := map[string]string{terminal.EnvironmentVariable(f.Name): nonsense}
				check(command(t, variables, path...), []string{"variable", f.Name}, kind)
			}
			seen[kind] = true
		})
	})
	for kind := range told {
		if !seen[kind] {
			t.Errorf("no flag is a %s", kind)
		}
	}
	command(t, nil, "jobs", "--limit", "99999999999999999999").WantError(t, "it is too large or too small")
}

func TestWhatIsNoService(t *testing.T) {
	eachCommand(func(cmd *cobra.Command) {
		if cmd.GroupID == "service" || cmd.HasSubCommands() || !cmd.Runnable() || cmd.Name() == "healthcheck" || cmd.Hidden {
			return
		}
		for _, name := range []string{"output", "quiet"} {
			if cmd.Flags().Lookup(name) == nil {
				t.Errorf("%s has no --%s", cmd.CommandPath(), name)
			}
		}
	})
}
