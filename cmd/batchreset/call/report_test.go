package call

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// junitReport is what a CI system reads of a report.
type junitReport struct {
	Tests    int `xml:"tests,attr"`
	Failures int `xml:"failures,attr"`
	Errors   int `xml:"errors,attr"`
	Suites   []struct {
		Name       string `xml:"name,attr"`
		Tests      int    `xml:"tests,attr"`
		Failures   int    `xml:"failures,attr"`
		Errors     int    `xml:"errors,attr"`
		Skipped    int    `xml:"skipped,attr"`
		Time       string `xml:"time,attr"`
		Timestamp  string `xml:"timestamp,attr"`
		Properties []struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		} `xml:"properties>property"`
		Cases []junitCase `xml:"testcase"`
	} `xml:"testsuite"`
}

// readJUnit reads a report that must be whole.
func readJUnit(t *testing.T, text string) (r junitReport) {
	t.Helper()
	if err := xml.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if len(r.Suites) != 1 || r.Suites[0].Tests != r.Tests || len(r.Suites[0].Cases) != r.Tests {
		t.Fatalf("%d suites, %d tests announced: %s", len(r.Suites), r.Tests, text)
	}
	return r
}

// endedRun adds a run that has ended, with an instance in each final state and one that has none.
func endedRun(s *fakeService, message string) *calltest.Run {
	run := s.AddRun("phone-1", "phone-2", "phone-3", "phone-4")
	run.State, run.Name = tasks.RunPartial, "recall <7>"
	run.FinishedAt = tasks.Time{Time: run.StartedAt.Add(2500e6)}
	for n, state := range []tasks.ItemState{tasks.ItemSucceeded, tasks.ItemFailed, tasks.ItemUnknown, tasks.ItemCancelled} {
		it := &run.Job.Items[n]
		if it.State = state; state != tasks.ItemSucceeded {
			it.Code, it.Message, it.Attempts = "CPS.0005", message, 2
		}
	}
	run.Job.Counts = tasks.Count(run.Job.Items)
	run.Failures = []tasks.RunFailure{{Code: "CPS.0005", Count: 2}}
	return run
}

func TestJUnit(t *testing.T) {
	everyByte := func() string {
		all := make([]byte, 256)
		for n := range all {
			all[n] = byte(n)
		}
		return string(all)
	}()
	for name, message := range map[string]string{
		"plain": "no luck", "markup": `</failure><testcase name="x"/>]]>&lt;"'`, "every byte": everyByte, "characters that XML has not": "\ufffe\uffff\U0010ffff \x00\x1b[31m \u202e",
	} {
		t.Run("with a message of "+name, func(t *testing.T) {
			s := newFakeService(t)
			endedRun(s, message)
			r := s.call(t, "run", "results", run1, "--output", "junit")
			if r.Code != 0 || !strings.HasPrefix(r.Out, `<?xml version="1.0" encoding="UTF-8"?>`+"\n<testsuites ") || !strings.HasSuffix(r.Out, "</testsuites>\n") {
				t.Fatalf("exit code %d, %s", r.Code, r.Out)
			}
			got := readJUnit(t, r.Out)
			suite := got.Suites[0]
			if got.Tests != 4 || suite.Failures != 1 || got.Failures != 1 || suite.Errors != 1 || got.Errors != 1 || suite.Skipped != 1 {
				t.Errorf("counts %+v", got)
			}
			if suite.Name != "recall <7>" || suite.Time != "2.500" || suite.Timestamp != "2026-01-02T03:04:05" {
				t.Errorf("suite %q, %s, %s", suite.Name, suite.Time, suite.Timestamp)
			}
			properties := map[string]string{}
			for _, p := range suite.Properties {
				properties[p.Name] = p.Value
			}
			if properties["run_id"] != run1 || len(properties["list_sha256"]) != 64 || properties["succeeded"] != "1" || properties["total"] != "4" || properties["state"] != "partial" {
				t.Errorf("properties %v", properties)
			}
			c := suite.Cases
			if c[0].Failure != nil || c[0].Error != nil || c[0].Skipped != nil || c[1].Failure == nil || c[2].Error == nil || c[3].Skipped == nil {
				t.Fatalf("cases %+v", c)
			}
			if c[1].ClassName != "recall <7>" || c[1].Name != "phone-2" || c[1].Failure.Type != "CPS.0005" {
				t.Errorf("case %+v, %+v", c[1], c[1].Failure)
			}
			shown := tasks.Visible(strings.ToValidUTF8(message, "\ufffd"))
			if got := c[1].Failure.Message; got != "CPS.0005: "+shown && name != "every byte" { // JSON makes more than one sign of bytes that are no text
				t.Errorf("message %q, want %q", got, shown)
			}
			if !strings.HasPrefix(c[2].Error.Message, "unknown: look at the instance") {
				t.Errorf("the unknown one says %q", c[2].Error.Message)
			}
		})
	}
	t.Run("of some states", func(t *testing.T) {
		s := newFakeService(t)
		endedRun(s, "no luck")
		got := readJUnit(t, s.call(t, "run", "results", run1, "--output", "junit", "--state", "failed,unknown,failed").Out)
		if got.Tests != 2 || got.Failures != 1 || got.Errors != 1 || got.Suites[0].Skipped != 0 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("of a run that is paused has errors for what has not ended", func(t *testing.T) {
		s := newFakeService(t)
		s.AddRun("phone-1").State = tasks.RunPaused
		got := readJUnit(t, s.call(t, "run", "results", run1, "--output", "junit").Out)
		if got.Errors != 1 || !strings.HasPrefix(got.Suites[0].Cases[0].Error.Message, "it has not ended") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("of a run that goes on is refused", func(t *testing.T) {
		s := newFakeService(t)
		s.Looks = 9
		s.AddRun("phone-1")
		s.call(t, "run", "results", run1, "--output", "junit").Wants(t, terminal.ExitRefused, "", "the run is running", "'batchreset run watch "+run1+" --output junit' waits for its end")
	})
	t.Run("is what a watch prints at the end", func(t *testing.T) {
		s := newFakeService(t)
		s.AddRun("failed-1", "phone-2")
		r := s.call(t, "run", "watch", run1, "--output", "junit")
		if got := readJUnit(t, r.Out); r.Code != terminal.ExitSome || got.Failures != 1 || got.Tests != 2 {
			t.Errorf("exit code %d, %s", r.Code, r.Out)
		}
	})
	t.Run("of a job", func(t *testing.T) {
		s := newFakeService(t)
		s.Add("failed-1", "cancelled-2", "phone-3")
		got := readJUnit(t, s.call(t, "status", job1, "--output", "junit").Out)
		if got.Tests != 3 || got.Failures != 1 || got.Suites[0].Skipped != 1 || got.Suites[0].Cases[0].ClassName != job1 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("is a result file", func(t *testing.T) {
		for _, args := range [][]string{{"submit"}, {"submit", "--run-id", "k"}, {"run", "submit"}} {
			s := newFakeService(t)
			path := filepath.Join(t.TempDir(), "r.xml")
			r := s.call(t, append(args, "failed-1", "phone-2", "--result", path)...)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := readJUnit(t, string(text)); r.Code != terminal.ExitSome || got.Failures != 1 || got.Tests != 2 {
				t.Errorf("%v: exit code %d, %s", args, r.Code, text)
			}
		}
	})
	t.Run("is a form that other commands do not have", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "run", "list", "--output", "junit").Wants(t, terminal.ExitUsage, "", "must be one of text, json, jsonl, yaml, csv, table")
		s.call(t, "run", "results", run1, "--output", "xml").Wants(t, terminal.ExitUsage, "", "table, junit, markdown")
	})
}

// TestAReportThatBreaksOff must not look whole, and the command must not look as if it were.
func TestAReportThatBreaksOff(t *testing.T) {
	s := newFakeService(t)
	endedRun(s, "no luck")
	for name, results := range map[string]string{
		"in the middle of a row": `{"instance_id":"phone-1","state":"succeeded"}` + "\n" + `{"instance_id":"pho`,
		"between two rows":       `{"instance_id":"phone-1","state":"succeeded"}` + "\n" + `{"instance_id":"phone-2","state":"failed","error_code":"CPS.0005"}` + "\n",
		"before the first row":   "",
	} {
		for _, form := range reportNames {
			t.Run(form+" "+name, func(t *testing.T) {
				broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !strings.HasSuffix(r.URL.Path, "/results") {
						s.Config.Handler.ServeHTTP(w, r)
						return
					}
					w.Header().Set("Content-Type", "application/jsonl")
					w.WriteHeader(http.StatusOK)
					_, _ = fmt.Fprint(w, results)
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				}))
				defer broken.Close()
				r := callCommand(t.Context(), strings.NewReader(""), "run", "results", run1, "--output", form, "--server", broken.URL, "--token", calltest.Token)
				if r.Code != terminal.ExitAway || strings.Contains(r.Out, "</testsuite") {
					t.Errorf("exit code %d, %s", r.Code, r.Out)
				}
				if form == formMarkdown && r.Out != "" {
					t.Errorf("half a summary: %s", r.Out)
				}
			})
		}
	}
	t.Run("because the run changed while it was read", func(t *testing.T) {
		head := report{kind: "run", id: run1, name: "n", total: 2, counts: client.Counts{Succeeded: 2}}
		var out bytes.Buffer
		err := writeJUnit(&out, head, rowsIn([]client.Job{{ID: job1, Items: []client.Item{{InstanceID: "phone-1", State: "succeeded"}}}}))
		if terminal.ExitCode(err) != terminal.ExitAway || !strings.Contains(err.Error(), "the run changed while it was read") || strings.Contains(out.String(), "</testsuite") {
			t.Errorf("%v, %s", err, &out)
		}
	})
	t.Run("leaves no result file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "r.xml")
		cut := errors.New("cut")
		err := (&resultFile{path}).writeEach(nil, report{total: 1}, func(func(resultRow) error) error { return cut })
		left, _ := filepath.Glob(filepath.Dir(path) + "/*")
		if !errors.Is(err, cut) || left != nil {
			t.Errorf("%v, there is %v", err, left)
		}
	})
}

// written counts what it is given.
type written int

func (w *written) Write(b []byte) (int, error) { *w += written(len(b)); return len(b), nil }

// TestAJUnitReportIsStreamed has a report of 100,000 instances be written while it is made.
func TestAJUnitReportIsStreamed(t *testing.T) {
	const instances = 100_000
	var out written
	head := report{kind: "run", id: run1, name: "n", total: instances, counts: client.Counts{Failed: instances}}
	row := resultRow{InstanceID: "phone", State: "failed", Code: "CPS.0005", Message: "no luck"}
	kept, size := 0, 0
	err := writeJUnit(&out, head, func(add func(resultRow) error) error {
		for n := range instances {
			before := int(out)
			if err := add(row); err != nil {
				return err
			}
			if n == 1000 {
				size = int(out) / 1000 // of a row, about
			}
			if n > 1000 {
				kept = max(kept, n*size-before)
			}
		}
		return nil
	})
	if err != nil || size < 100 || kept > instances*size/10 {
		t.Errorf("%v; up to %d bytes of rows of %d were kept", err, kept, size)
	}
}

func TestMarkdown(t *testing.T) {
	t.Run("is a summary", func(t *testing.T) {
		s := newFakeService(t)
		run := endedRun(s, "no luck")
		got := html.UnescapeString(s.call(t, "run", "results", run1, "--output", "markdown").Out)
		want := "### Reset run <code>recall <7></code>: <code>partial</code>\n\n" +
			"4 instances, run <code>" + run1 + "</code>, took 2.5s, list sha256 <code>" + run.ListSHA256 + "</code>\n\n" +
			"| state | instances |\n| --- | ---: |\n| succeeded | 1 |\n| failed | 1 |\n| unknown | 1 |\n| cancelled | 1 |\n\n" +
			"| failed or unknown | code | first message | first instances |\n| ---: | --- | --- | --- |\n" +
			"| 2 | <code>CPS.0005</code> | <code>no luck</code> | <code>phone-2</code>, <code>phone-3</code> |\n\n" +
			"unknown: the reset was sent and nobody can say whether it happened. Look at the instance before you reset it again.\n"
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("names the first of many, and reads no further", func(t *testing.T) {
		head := report{kind: "run", counts: client.Counts{Failed: 100}, failures: []client.RunFailure{{Code: "A", Count: 70}, {Code: "B", Count: 2}}}
		read := 0
		var out strings.Builder
		err := writeMarkdown(&out, head, func(add func(resultRow) error) error {
			for n, code := range strings.Fields("A A A C A A A A B B D") {
				read = n + 1
				if err := add(resultRow{InstanceID: fmt.Sprint("p", n), State: "failed", Code: code, Message: "m"}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || read != 10 {
			t.Errorf("%v after %d rows", err, read)
		}
		for _, want := range []string{
			"| 70 | <code>A</code> | <code>m</code> | <code>p0</code>, <code>p1</code>, <code>p2</code>, <code>p4</code>, <code>p5</code>, and 65 more |\n",
			"| 2 | <code>B</code> | <code>m</code> | <code>p8</code>, <code>p9</code> |\n| 28 | other codes | | |\n",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in\n%s", want, out.String())
			}
		}
	})
	t.Run("cannot be broken by what an upstream says", func(t *testing.T) {
		for _, message := range []string{
			"| x |\n| y |", `\| \`, "<script>alert(1)</script>", "</code><img src=x onerror=alert(1)>", "`a` *b* _c_ ~~d~~", "[x](https://evil.example) www.evil.example @everyone #1",
			"\r\n\r\n# heading", "&lt;b&gt; &#124;", "\u2028\u202e\x00", strings.Repeat("long ", 1000),
		} {
			s := newFakeService(t)
			endedRun(s, message)
			out := s.call(t, "run", "results", run1, "--output", "markdown").Out
			lines := strings.Split(out, "\n")
			if len(lines) != 17 {
				t.Errorf("%q makes %d lines of it:\n%s", message, len(lines), out)
				continue
			}
			row := lines[13]
			text := strings.Split(row, " | ")
			if len(text) != 4 || len(row) > 3000 {
				t.Fatalf("%q makes %d cells: %s", message, len(text), row)
			}
			if !regexp.MustCompile(`^<code>([\pL\pN …-]|\[U|&#\d+;)+</code>$`).MatchString(text[2]) {
				t.Errorf("%q becomes %s", message, text[2])
			}
			inside := strings.TrimSuffix(strings.TrimPrefix(text[2], "<code>"), "</code>")
			if shown := strings.TrimSuffix(html.UnescapeString(inside), "…"); !strings.HasPrefix(tasks.Visible(message), shown) {
				t.Errorf("%q reads %q", message, shown)
			}
		}
	})
	t.Run("is of the whole run", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "run", "results", run1, "--output", "markdown", "--state", "failed").Wants(t, terminal.ExitUsage, "", "--state and --output markdown do not go together")
		s.call(t, "run", "results", run1, "--output", "markdown").Wants(t, terminal.ExitRefused, "", "RESET.0001: there is no such run")
	})
	t.Run("of a job, and as a result file", func(t *testing.T) {
		s := newFakeService(t)
		path := filepath.Join(t.TempDir(), "r.md")
		s.call(t, "submit", "failed-1", "phone-2", "--result", path)
		text, err := os.ReadFile(path)
		if err != nil || string(text) != s.call(t, "status", job1, "-o", "markdown").Out || !strings.Contains(string(text), "| 1 | <code>RESET&#46;1007</code> |") {
			t.Errorf("%v, %s", err, text)
		}
	})
}
