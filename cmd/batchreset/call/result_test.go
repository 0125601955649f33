package call

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestResult(t *testing.T) {
	read := func(t *testing.T, path string) string {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.part"))
		if err != nil || left != nil {
			t.Errorf("left behind: %v, %v", left, err)
		}
		return string(b)
	}
	t.Run("has a row for each instance, in the order of the list", func(t *testing.T) {
		s := newFakeService(t)
		path := filepath.Join(t.TempDir(), "r.csv")
		r := s.call(t, "submit", "phone-1", "failed-1", "unknown-1", "--result", path)
		if r.Code != 2 {
			t.Errorf("exit code %d: %s", r.Code, r.Said)
		}
		want := "instance_id,job_id,item_id,state,attempts,error_code,error_msg,started_at,finished_at,evidence\n" +
			"phone-1," + job1 + "," + job1 + "-0,succeeded,1,,,,,\n" +
			"failed-1," + job1 + "," + job1 + "-1,failed,1,RESET.1007,\"no \x1b[31mluck\twith\nfailed-1\",,,\n" +
			"unknown-1," + job1 + "," + job1 + "-2,unknown,1,RESET.1007,\"no \x1b[31mluck\twith\nunknown-1\",,,\n"
		if got := read(t, path); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
	t.Run("is written as JSON lines", func(t *testing.T) {
		s := newFakeService(t)
		path := filepath.Join(t.TempDir(), "r.jsonl")
		s.call(t, "submit", "phone-1", "failed-1", "--result", path)
		var states []string
		for line := range strings.Lines(read(t, path)) {
			var row resultRow
			if err := json.Unmarshal([]byte(line), &row); err != nil {
				t.Fatal(err)
			}
			states = append(states, row.InstanceID+" "+row.ItemID+" "+row.State)
		}
		if got, want := strings.Join(states, ", "), "phone-1 "+job1+"-0 succeeded, failed-1 "+job1+"-1 failed"; got != want {
			t.Errorf("rows %s, want %s", got, want)
		}
	})
	t.Run("goes to standard output instead of the job IDs", func(t *testing.T) {
		s := newFakeService(t)
		r := s.call(t, "submit", "phone-1", "--result", "-")
		r.Wants(t, 0, strings.Join(resultColumns, ",")+"\nphone-1,"+job1+","+job1+"-0,succeeded,1,,,,,\n")
	})
	t.Run("says what is known when it is interrupted", func(t *testing.T) {
		s := newFakeService(t)
		s.Looks = 1000
		ctx, interrupt := terminaltest.Interruptible(t)
		s.Looking = func(http.ResponseWriter, *http.Request, int) bool { interrupt(); return false }
		path := filepath.Join(t.TempDir(), "r.csv")
		r := s.callWith(ctx, nil, "submit", "phone-1", "--result", path)
		r.Wants(t, terminaltest.ExitInterrupted, job1+"\n", "as it was when this was interrupted", "interrupted; the jobs go on")
		if got := read(t, path); !strings.Contains(got, "phone-1,"+job1+","+job1+"-0,running,1,") {
			t.Errorf("got %s", got)
		}
	})
	t.Run("says what was accepted if there is no more to know", func(t *testing.T) {
		s := newFakeService(t)
		s.Looking = func(http.ResponseWriter, *http.Request, int) bool { panic(http.ErrAbortHandler) }
		path := filepath.Join(t.TempDir(), "r.csv")
		s.call(t, "submit", "phone-1", "--result", path, "--timeout", "300ms").Wants(t, terminal.ExitTimeout, job1+"\n", "is over; the jobs go on")
		if got := read(t, path); !strings.HasSuffix(got, "\nphone-1,"+job1+","+job1+"-0,accepted,0,,,,,\n") {
			t.Errorf("got %s", got)
		}
	})
	t.Run("of a run is written at its end alone", func(t *testing.T) {
		s := newFakeService(t)
		s.Looks = 1000
		ctx, interrupt := terminaltest.Interruptible(t)
		s.Submitting = func(http.ResponseWriter, *http.Request, int) bool { interrupt(); return false }
		path := filepath.Join(t.TempDir(), "r.jsonl")
		args := []string{"submit", "failed-1", "phone-2", "--run-id", "k", "--result", path}
		s.callWith(ctx, nil, args...).Wants(t, terminaltest.ExitInterrupted, "", "the run goes on")
		if _, err := os.Stat(path); err == nil {
			t.Error("there is a result already")
		}
		s.Mu.Lock()
		s.Looks = 0
		s.Mu.Unlock()
		if r := s.call(t, args...); r.Code != terminal.ExitSome || strings.Count(read(t, path), "\n") != 2 {
			t.Errorf("exit code %d, result %s", r.Code, read(t, path))
		}
	})
	t.Run("of an earlier run stays where nothing was accepted", func(t *testing.T) {
		s := newFakeService(t)
		s.Submitting = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			calltest.AnswerError(w, 422, "RESET.0002", "used")
			return true
		}
		path := filepath.Join(t.TempDir(), "r.csv")
		if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{nil, {"--run-id", "a"}} {
			s.call(t, append([]string{"submit", "phone-1", "--result", path}, args...)...).Wants(t, terminal.ExitRefused, "", "RESET.0002")
		}
		if got := read(t, path); got != "before" {
			t.Errorf("got %s", got)
		}
	})
}

func TestAResultIsWrittenOverNothingElse(t *testing.T) {
	for _, extension := range []string{".csv", ".jsonl"} {
		s := newFakeService(t)
		dir := t.TempDir()
		path, other := filepath.Join(dir, "r"+extension), filepath.Join(dir, "other")
		if err := os.WriteFile(other, []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, link := range []string{path, path + ".part"} {
			if err := os.Symlink(other, link); err != nil {
				t.Fatal(err)
			}
		}
		s.call(t, "submit", "phone-1", "--result", path).Wants(t, 0, job1+"\n")
		if text, err := os.ReadFile(other); err != nil || string(text) != "before" {
			t.Errorf("behind a link there is %q, %v", text, err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("the result is %v, %v", info.Mode(), err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 3 {
			t.Errorf("there are %v, %v", left, err)
		}
	}
}

func TestResultIsRefusedAheadOfTime(t *testing.T) {
	s := newFakeService(t)
	dir := t.TempDir()
	list := filepath.Join(dir, "list.csv")
	if err := os.WriteFile(list, []byte("phone-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d.csv"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		result string
		args   []string
		want   string
	}{
		"without an extension":        {"r", nil, `--result must be a file called ….csv, ….jsonl, ….xml or ….md, or -, not "r"`},
		"a directory":                 {filepath.Join(dir, "d.csv"), nil, "d.csv is a directory"},
		"in a folder that is not":     {filepath.Join(dir, "no", "r.csv"), nil, "--result cannot be written: open "},
		"below a file":                {filepath.Join(list, "r.csv"), nil, "--result cannot be written: open "},
		"the list itself":             {filepath.Join(dir, ".", "list.csv"), nil, "is the file that the instances are read from"},
		"on standard output as JSON":  {"-", []string{"--output", "json"}, "--result - and --output json do not go together"},
		"with a dry run, that has no": {filepath.Join(dir, "r.csv"), []string{"--dry-run"}, "--dry-run does not go together with --wait or --result"},
	} {
		t.Run(name, func(t *testing.T) {
			s.call(t, append([]string{"submit", "--file", list, "--result", row.result}, row.args...)...).Wants(t, terminal.ExitUsage, "", row.want)
		})
	}
	if n := s.Requests(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}
