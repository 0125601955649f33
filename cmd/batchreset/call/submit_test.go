package call

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func phones(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("phone-%d", i)
	}
	return ids
}

func TestSubmit(t *testing.T) {
	t.Run("prints the job ID alone on standard output", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "submit", "phone-1", "phone-2").Wants(t, 0, job1+"\n", "2 instances accepted; 'batchreset watch "+job1+"' follows the job")
	})
	t.Run("says why, for what and when", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "submit", "phone-1", "--reason", "recall <7>", "--label", "site=lab,ticket=T 1", "--not-before", "2h", "--max-failures", "3").
			Wants(t, 0, job1+"\n", "1 instance accepted")
		var body struct {
			Reason      string            `json:"reason"`
			Labels      map[string]string `json:"labels"`
			NotBefore   time.Time         `json:"not_before"`
			MaxFailures int               `json:"max_failures"`
		}
		if err := json.Unmarshal([]byte(s.Bodies[0]), &body); err != nil {
			t.Fatal(err)
		}
		if ahead := time.Until(body.NotBefore); ahead > 2*time.Hour || ahead < 119*time.Minute {
			t.Errorf("begins in %s", ahead)
		}
		if body.Reason != "recall <7>" || body.Labels["site"] != "lab" || body.Labels["ticket"] != "T 1" || body.MaxFailures != 3 {
			t.Errorf("sent %s", s.Bodies[0])
		}
	})
	t.Run("refuses options that cannot be, before anything is sent", func(t *testing.T) {
		s := newFakeService(t)
		for want, args := range map[string][]string{
			`--not-before must be a time such as 2026-01-02T15:04:05Z or a duration such as 10m, not "soon"`: {"--not-before", "soon"},
			"--not-before is in the past":            {"--not-before", "-5m"},
			"--not-before is more than 7 days ahead": {"--not-before", "169h"},
			"if there is a --run-id":                 {"--not-before", "1h", "--run-id", "k"},
			"--reason is 257 characters long":        {"--reason", strings.Repeat("ü", 257)},
			"--label has a label without a name":     {"--label", "=x"},
			"--label\" flag: it has site twice":      {"--label", "site=lab", "--label", "site=store"},
			"--label\" flag: it has rack twice":      {"--label", "rack=1,rack=2"},
			"--dry-run does not go together with":    {"--dry-run", "--wait"},
			"--max-failures must not be negative":    {"--max-failures", "-1"},
		} {
			r := s.call(t, append([]string{"submit", "phone-1"}, args...)...)
			if r.Says(t, want); r.Code != terminal.ExitUsage {
				t.Errorf("%v: exit code %d", args, r.Code)
			}
		}
		if got := s.Sent(); len(got) != 0 {
			t.Errorf("sent %v", got)
		}
	})
	t.Run("leaves it to the service whether a time is past", func(t *testing.T) {
		s := newFakeService(t)
		for n, at := range []string{"2020-01-02T15:04:05Z", "2090-01-02T15:04:05+02:00"} {
			s.call(t, "submit", "phone-1", "--not-before", at)
			if len(s.Bodies) != n+1 || !strings.Contains(s.Bodies[n], `"not_before":"20`) {
				t.Fatalf("sent %v", s.Bodies)
			}
		}
	})
	t.Run("tries out", func(t *testing.T) {
		s := newFakeService(t)
		verdict := "busy"
		s.Submitting = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			_, _ = fmt.Fprintf(w, `{"error_code":"0","error_msg":"ok","data":{"dry_run":true,"instances":[`+
				`{"instance_id":"phone-1","verdict":"would_reset"},{"instance_id":"phone-22","verdict":%q}]}}`, verdict)
			return true
		}
		s.call(t, "submit", "phone-1", "phone-22", "--dry-run").Wants(t, 0, "phone-1   would_reset\nphone-22  busy\n")
		if !strings.Contains(s.Bodies[0], `"dry_run":true`) {
			t.Errorf("sent %s", s.Bodies[0])
		}
		verdict = "protected"
		s.call(t, "submit", "phone-1", "phone-22", "--dry-run").Wants(t, 2, "phone-1   would_reset\nphone-22  protected\n")
		r := s.call(t, "submit", "phone-1", "phone-22", "--dry-run", "--output", "json")
		sameJSON(t, r.Out, `{"dry_run":true,"instances":[{"instance_id":"phone-1","verdict":"would_reset"},{"instance_id":"phone-22","verdict":"protected"}]}`)
	})
	t.Run("tells when a service does not know how to try out", func(t *testing.T) {
		s := newFakeService(t)
		if r := s.call(t, "submit", "phone-1", "--dry-run"); r.Code != terminal.ExitAway {
			t.Errorf("exit code %d", r.Code)
		} else {
			r.Says(t, "the instances are being reset")
		}
	})
	t.Run("prints one JSON document", func(t *testing.T) {
		s := newFakeService(t)
		r := s.call(t, "submit", "phone-1", "--output", "json")
		sameJSON(t, r.Out, `{"errors":[],"jobs":[{"job_id":"`+job1+`","items":[{"item_id":"`+job1+`-0","instance_id":"phone-1"}]}]}`)
		r.Wants(t, 0, r.Out)
	})
	t.Run("reads arguments and a file together, without comments, blanks and repeats", func(t *testing.T) {
		s := newFakeService(t)
		file := terminaltest.File(t, "\ufeffphone-2\r\n\r\n# a comment\n  # another; \"one\"\n  phone-3  \nphone-1\nphone-3\n")
		s.call(t, "submit", "phone-1", "phone-1", "--file", file).Wants(t, 0, job1+"\n", "3 repeated IDs folded")
		if got := s.Sent()[0]; !slices.Equal(got, []string{"phone-1", "phone-2", "phone-3"}) {
			t.Errorf("sent %q", got)
		}
	})
	t.Run("fails when the job IDs cannot be printed", func(t *testing.T) {
		s := newFakeService(t)
		full := errors.New("disk full")
		err := terminal.Execute(t.Context(), newRootCommand(&terminal.Streams{Out: brokenWriter{full}, Err: &strings.Builder{}}),
			[]string{"submit", "phone-1", "--server", s.URL, "--token", calltest.Token})
		if !errors.Is(err, full) {
			t.Errorf("error %v", err)
		}
	})
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestSubmitRefuses(t *testing.T) {
	s := newFakeService(t)
	bad := terminaltest.File(t, "phone-1\n\n# x\nphone 2\n"+strings.Repeat("x", 65)+"\n")
	many := terminaltest.File(t, strings.Repeat("a/b\n", 13))
	long := terminaltest.File(t, "phone-1\n"+strings.Repeat("x", 70_000))
	empty := terminaltest.File(t, "\n# nothing\n")
	missing := empty + ".not"
	directory := t.TempDir()
	for _, row := range []struct {
		name string
		args []string
		want []string
	}{
		{"no IDs", nil, []string{"there is no instance ID", "--file"}},
		{"a bad ID by its place among the arguments", []string{"ok", "a/b"}, []string{`argument 2: instance ID "a/b" has characters other than`}},
		{"an empty argument", []string{""}, []string{"argument 1: instance ID is empty"}},
		{"bad IDs by their lines", []string{"--file", bad}, []string{
			"--file " + bad + ` line 4: instance ID "phone 2" has characters`,
			"--file " + bad + " line 5: instance ID is 65 bytes long",
		}},
		{"many bad IDs without naming all", []string{"--file", many}, []string{"line 10: ", "and 3 more; nothing was sent"}},
		{"an endless line", []string{"--file", long}, []string{"--file " + long + " line 2: instance ID is 70000 bytes long, the limit is 64"}},
		{"a file without IDs", []string{"--file", empty}, []string{"--file " + empty + " names no instance"}},
		{"a file that is not there", []string{"--file", missing}, []string{"--file " + missing + ": no such file"}},
		{"a directory", []string{"--file", directory}, []string{"--file " + directory + ": is a directory"}},
		{"a run ID of a variable that is not set", []string{"phone-1", "--run-id", ""}, []string{"\"--run-id\" flag: it is empty"}},
		{"a file without a name", []string{"phone-1", "--file", ""}, []string{"--file\" flag: it is empty"}},
		{"empty standard input", []string{"--file", "-"}, []string{"--file - names no instance"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s.call(t, append([]string{"submit"}, row.args...)...).Wants(t, terminal.ExitUsage, "", row.want...)
		})
	}
	if n := s.Requests(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}
