package call

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal"
)

const resultHead = "instance_id,job_id,item_id,state,attempts,error_code,error_msg,started_at,finished_at\n" // of older versions

var writtenHead = strings.Join(resultColumns, ",") + "\n"

func TestRetryFailedFrom(t *testing.T) {
	file := func(t *testing.T, name, content string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// Jobs of another server.
	other1, other2 := strings.Repeat("e", 31)+"1", strings.Repeat("e", 31)+"2"
	rows := resultHead + "ok-1," + other1 + "," + other1 + "-0,succeeded,1,,,,\n" +
		"failed-1," + other1 + "," + other1 + "-1,failed,1,CPS.0005,\"no,\nluck\",,\n" +
		"unknown-1," + other1 + "," + other1 + "-2,unknown,1,,,,\n" +
		"cancelled-1," + other1 + "," + other1 + "-3,cancelled,1,,,,\n" +
		"failed-2," + other2 + "," + other2 + "-0,failed,1,,,,\n" +
		"foreign-1,,,refused,0,RESET.0004,x,,\n"
	t.Run("submits the rows that failed, and no others", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "retry", "--failed-from", file(t, "r.csv", "\ufeff"+strings.ReplaceAll(rows, "\n", "\r\n")), "--label", "site=lab", "--reason", "again").Wants(t, 0, job1+"\n",
			"2 instances to reset again (left alone: 1 succeeded, 1 unknown, 1 cancelled, 1 refused)")
		sameJSON(t, s.Bodies[0], `{"instance_ids":["failed-1","failed-2"],"reason":"again","labels":{"site":"lab"}}`)
	})
	t.Run("and unknown ones if they are included", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "retry", "--include-unknown", "--failed-from", file(t, "r.csv", rows)).Wants(t, 0, job1+"\n", "3 instances to reset again")
		if got := s.Sent()[0]; !slices.Equal(got, []string{"failed-1", "unknown-1", "failed-2"}) {
			t.Errorf("sent %v", got)
		}
	})
	t.Run("as a run if they are many, which it follows", func(t *testing.T) {
		s := newFakeService(t)
		many := resultHead
		for n := range 33 {
			many += fmt.Sprintf("phone-%d,%s,%s-%d,failed,1,,,,\n", n, other1, other1, n)
		}
		path, result := file(t, "r.csv", many), filepath.Join(t.TempDir(), "again.jsonl")
		r := s.call(t, "retry", "--failed-from", path)
		if r.Says(t, "run "+run1+": 33 instances"); r.Code != 0 || len(s.Runs) != 1 || len(s.Jobs) != 0 {
			t.Errorf("exit code %d, %d runs, %d jobs", r.Code, len(s.Runs), len(s.Jobs))
		}
		s.call(t, "retry", "--failed-from", path, "--wait=false").Wants(t, 0, run1+"\n", "")
		s.call(t, "retry", "--failed-from", path, "--result", result)
		if again, err := readResult(result); err != nil || len(again) != 33 || len(s.Runs) != 1 {
			t.Errorf("%d rows of %d runs, %v", len(again), len(s.Runs), err)
		}
		s.call(t, "retry", "--failed-from", path, "--max-failures", "3").Wants(t, terminal.ExitUsage, "", "--max-failures stops a job")
	})
	t.Run("finds what the same file became, and resets nothing twice", func(t *testing.T) {
		s := newFakeService(t)
		s.KeepFinal = true
		path := file(t, "r.csv", rows)
		for range 2 {
			s.call(t, "retry", "--failed-from", path, "--wait").Wants(t, terminal.ExitSome, job1+"\n", "2 instances in 1 job: 2 failed")
		}
		if len(s.Jobs) != 1 {
			t.Errorf("%d jobs under %v", len(s.Jobs), s.Keys)
		}
		s.call(t, "retry", "--failed-from", path, "--reason", "other").Wants(t, terminal.ExitRefused, "", "the file was retried with other options: give those again: RESET.0002")
		s.call(t, "retry", "--failed-from", file(t, "r.csv", strings.Replace(rows, "-0,failed,1", "-0,failed,2", 1))).Wants(t, 0, job2+"\n", "2 instances to reset again")
	})
	t.Run("says that the same file finds out what became of a lost answer", func(t *testing.T) {
		s := newFakeService(t)
		s.Submitting = func(http.ResponseWriter, *http.Request, int) bool { panic(http.ErrAbortHandler) }
		s.call(t, "retry", "--failed-from", file(t, "r.csv", rows)).Wants(t, terminal.ExitAway, "", "or give the same command again: it finds")
	})
	t.Run("takes what submit --result writes, waits and writes a result of its own", func(t *testing.T) {
		for _, extension := range []string{".csv", ".jsonl"} {
			s := newFakeService(t)
			dir := t.TempDir()
			first, second := filepath.Join(dir, "first"+extension), filepath.Join(dir, "second"+extension)
			s.call(t, "submit", "phone-1", "failed-1", "failed-2", "--result", first)
			s.Mu.Lock()
			s.Jobs[0].ID = other1 // it is not there any more
			s.Mu.Unlock()
			r := s.call(t, "retry", "--failed-from", first, "--result", second)
			r.Wants(t, 2, job2+"\n", "2 instances to reset again (left alone: 1 succeeded)", "2 instances in 1 job: 2 failed")
			if again, err := readResult(second); err != nil || len(again) != 2 || again[0].ItemID != job2+"-0" {
				t.Errorf("%v, %v", again, err)
			}
		}
	})
	t.Run("leaves to the records of this server what they are about", func(t *testing.T) {
		s := newFakeService(t)
		s.Add("ok-1", "failed-1")
		s.Add("failed-2")
		s.Jobs[1].RunID = run1
		path := file(t, "r.csv", strings.NewReplacer(other1, job1, other2, job2).Replace(rows))
		s.call(t, "retry", "--failed-from", path).Wants(t, terminal.ExitUsage, "", "this server has the records of these instances", "use 'batchreset run retry "+run1+"' and 'batchreset retry "+job1+"'")
		if len(s.Sent()) != 0 {
			t.Errorf("sent %v", s.Sent())
		}
	})
	t.Run("has nothing to do where nothing failed", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "retry", "--failed-from", file(t, "r.csv", writtenHead)).Wants(t, 0, "", "nothing to reset again (left alone: none)")
		if s.Requests() != 0 {
			t.Error("it asked all the same")
		}
	})
	t.Run("says so to programs, too", func(t *testing.T) {
		s := newFakeService(t)
		for form, want := range map[string]string{"csv": writtenHead, "jsonl": "", "table": "INSTANCE ID"} {
			r := s.call(t, "retry", "--failed-from", file(t, "r.csv", writtenHead), "-o", form)
			if r.Code != 0 || !strings.HasPrefix(r.Out, want) || want == "" && r.Out != "" {
				t.Errorf("as %s it ends with %d and prints %q", form, r.Code, r.Out)
			}
		}
		r := s.call(t, "retry", "--failed-from", file(t, "r.csv", writtenHead), "-o", "json")
		sameJSON(t, r.Out, `{"errors":[],"jobs":[]}`)
	})
	t.Run("writes the result all the same", func(t *testing.T) {
		for name, want := range map[string]string{"again.csv": writtenHead, "again.jsonl": ""} {
			s := newFakeService(t)
			result := filepath.Join(t.TempDir(), name)
			s.call(t, "retry", "--failed-from", file(t, "r.csv", writtenHead), "--result", result).Wants(t, 0, "")
			if text, err := os.ReadFile(result); err != nil || string(text) != want {
				t.Errorf("%s has %q, %v", name, text, err)
			}
			s.call(t, "retry", "--failed-from", result).Wants(t, 0, "", "nothing to reset again")
		}
		s := newFakeService(t)
		s.call(t, "retry", "--failed-from", file(t, "r.csv", writtenHead), "--result", "-").Wants(t, 0, writtenHead)
	})

	s := newFakeService(t)
	good := "bad-1," + job1 + "," + job1 + "-1,failed,5,,,,\n"
	for name, row := range map[string]struct {
		file, content string
		args          []string
		want          string
	}{
		"an empty file":         {file: "r.csv", want: "r.csv: is empty"},
		"an empty JSON file":    {file: "r.jsonl", content: "\n", want: "r.jsonl: is empty"},
		"another kind of file":  {file: "r.txt", content: rows, want: "is not called ….csv or ….jsonl"},
		"a list of IDs":         {file: "r.csv", content: "phone-1\nphone-2\n", want: "has no column instance_id in its first line"},
		"a missing column":      {file: "r.csv", content: strings.Replace(rows, "attempts", "tries", 1), want: "has no column attempts"},
		"an unknown column":     {file: "r.csv", content: strings.Replace(rows, "error_msg", "State", 1), want: `line 1: unknown column "State"; did you mean "state"?`},
		"a column twice":        {file: "r.csv", content: strings.Replace(rows, "error_msg", "state", 1), want: "line 1: the column state is there twice"},
		"a JSON field twice":    {file: "r.jsonl", content: `{"instance_id":"a","state":"succeeded","state":"failed"}` + "\n", want: `line 1 is not a row of a result: it has the field "state" twice`},
		"another JSON field":    {file: "r.jsonl", content: `{"instance_id":"a","STATE":"failed"}` + "\n", want: `unknown field "STATE"; did you mean "state"?`},
		"a row that is cut":     {file: "r.csv", content: resultHead + good + "bad-2," + job1, want: "line 3: wrong number of fields"},
		"a bad instance":        {file: "r.csv", content: resultHead + strings.Replace(good, "bad-1", "bad 1", 1), want: `line 2: instance_id "bad 1" has characters`},
		"a state of none":       {file: "r.csv", content: resultHead + strings.Replace(good, "failed", "Failed", 1), want: `line 2: state is "Failed"`},
		"attempts of none":      {file: "r.csv", content: resultHead + strings.Replace(good, ",5,", ",,", 1), want: `line 2: attempts is ""`},
		"an item of none":       {file: "r.csv", content: resultHead + strings.Replace(good, "-1,failed", ",failed", 1), want: `line 2: item_id "` + job1 + `" is not`},
		"an instance twice":     {file: "r.csv", content: resultHead + good + good, want: "line 3: instance bad-1 is in line 2 already"},
		"JSON that is none":     {file: "r.jsonl", content: "{}\n[1]\n", want: "line 1: instance_id is empty"},
		"JSON of another shape": {file: "r.jsonl", content: "[1]\n", want: "line 1 is not a row of a result"},
		"a job, too":            {file: "r.csv", content: rows, args: []string{job1}, want: "a job and --failed-from do not go together"},
		"its own result":        {file: "r.csv", content: rows, args: []string{"--result", "-", "--output", "json"}, want: "--result - and --output json"},
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			s.call(t, append([]string{"retry", "--failed-from", file(t, row.file, row.content)}, row.args...)...).Wants(t, terminal.ExitUsage, "", row.want)
		})
	}
	t.Run("refuses a file that is not there", func(t *testing.T) {
		s.call(t, "retry", "--failed-from", "/no/such.csv").Wants(t, terminal.ExitUsage, "", "--failed-from /no/such.csv: no such file")
	})
	t.Run("refuses a directory", func(t *testing.T) {
		s.call(t, "retry", "--failed-from", t.TempDir()).Wants(t, terminal.ExitUsage, "", "is a directory")
	})
	t.Run("refuses what goes with a file where there is a job", func(t *testing.T) {
		s.call(t, "retry", job1, "--include-unknown").Wants(t, terminal.ExitUsage, "", "--include-unknown goes with --failed-from, not with a job")
		s.call(t, "retry").Wants(t, terminal.ExitUsage, "", "the job ID is missing")
		s.call(t, "retry", "--state", "failed", "--failed-from", file(t, "r.csv", rows)).Wants(t, terminal.ExitUsage, "", "--failed-from and --state do not go together")
	})
	if n := s.Requests(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestRetryOfAJobNamesItsStates(t *testing.T) {
	s := newFakeService(t)
	s.Add("failed-1", "unknown-1")
	for _, row := range []struct {
		args []string
		body string
	}{
		{nil, ""},
		{[]string{"--state", "unknown"}, `{"states":["unknown"]}`},
		{[]string{"--state", "failed,cancelled"}, `{"states":["failed","cancelled"]}`},
		{[]string{"--state=failed", "--state=unknown"}, `{"states":["failed","unknown"]}`},
	} {
		if r := s.call(t, append([]string{"retry", job1}, row.args...)...); r.Code != 0 || !strings.Contains(r.Out, job1) {
			t.Fatalf("%v: %+v", row.args, r)
		}
		if n := len(s.Retries); s.Retries[n-1] != row.body {
			t.Errorf("%v: sent %q, want %q", row.args, s.Retries[n-1], row.body)
		}
	}
	asked := len(s.Retries)
	for states, want := range map[string]string{
		"":               "it is empty",
		"failed,failed":  `--state has "failed" twice`,
		"succeeded":      `--state has "succeeded", which is none of failed, unknown or cancelled`,
		"Unknown":        `did you mean "unknown"?`,
		"failed unknown": `--state has "failed unknown", which is none of`,
	} {
		s.call(t, "retry", job1, "--state", states).Wants(t, terminal.ExitUsage, "", want)
	}
	if len(s.Retries) != asked {
		t.Errorf("asked all the same: %v", s.Retries[asked:])
	}
}
