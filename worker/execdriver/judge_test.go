package execdriver

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"batchreset/worker"
)

// isDone stands beside the verdicts for no error.
const isDone = worker.Verdict("done")

func TestWhatTheEndOfARunMeans(t *testing.T) {
	t.Parallel()
	const doubt, odd = worker.Unknown, worker.NotUnderstood
	plain := Config{ExitStatus: true}
	for _, row := range []struct {
		script  string
		cfg     Config
		want    worker.Verdict
		code    string
		message string
	}{
		// Results.
		{`echo '{"result":"done"}'`, Config{}, isDone, "", ""},
		{`printf '{"result":"done"}'`, Config{}, isDone, "", ""},
		{`printf ' {"result":"done"} \r\n\n'`, Config{}, isDone, "", ""},
		{`echo '{"progress":"1"}'; echo '{"checkpoint":"a"}'; echo '{"progress":"2"}'; echo '{"result":"done","evidence":"boot 1"}'`, Config{}, isDone, "", ""},
		{`echo chatter >&2; echo '{"result":"done"}'`, Config{}, isDone, "", ""},
		{`echo '{"result":"retry","code":"E7","message":"no space"}'`, Config{}, worker.Retryable, "E7", "no space"},
		{`echo '{"result":"retry"}'; exit 75`, Config{}, worker.Retryable, "", "the program says retry"},
		{`echo '{"result":"permanent","message":"no such phone"}'`, Config{}, worker.Permanent, "", "no such phone"},
		{`echo '{"result":"busy"}'`, Config{}, worker.Busy, "", "the program says busy"},
		{`echo '{"result":"unreachable"}'; exit 1`, Config{}, worker.Unreachable, "", ""},
		{`echo '{"result":"unknown","code":"E8","message":"lost it"}'`, Config{}, doubt, "E8", "lost it"},

		// What a program says and then does otherwise.
		{`echo '{"result":"done"}'; exit 3`, Config{}, doubt, odd, "said done, but it ended with exit status 3"},
		{`echo '{"result":"done"}'; kill -9 $$`, Config{}, doubt, "", "said done, but it ended with signal: killed"},
		{`echo '{"result":"retry"}'; kill -9 $$`, Config{}, doubt, "", "said retry, but it ended with signal: killed"},

		// No result.
		{`exit 0`, Config{}, doubt, odd, "no result: it ended with exit status 0"},
		{`exit 1`, Config{}, doubt, odd, "no result: it ended with exit status 1"},
		{`echo '{"progress":"half way"}'; exit 1`, Config{}, doubt, odd, `its last progress was "half way"`},
		{`kill -9 $$`, Config{}, doubt, "", "signal: killed"},
		{`exec >&-; exit 0`, Config{}, doubt, odd, "no result"},

		// Not understood.
		{`echo Success`, Config{}, doubt, odd, `line 1 is not a JSON object: "Success"`},
		{`echo; echo '{"progress":"x"}'; echo Success; echo '{"result":"done"}'`, Config{}, doubt, odd, `line 3 is not a JSON object: "Success"`},
		{`echo '{"result":"done"}{"result":"done"}'`, Config{}, doubt, odd, "line 1"},
		{`echo '{"result":"done"'`, Config{}, doubt, odd, "line 1 is not"},
		{`printf '\000\377\200\n'`, Config{}, doubt, odd, "line 1 is not a JSON object"},
		{`head -c 100000 /dev/urandom`, Config{}, doubt, odd, ""},
		{`echo '[{"result":"done"}]'`, Config{}, doubt, odd, "line 1 is not"},
		{`echo null`, Config{}, doubt, odd, "must have one of"},
		{`echo '{}'`, Config{}, doubt, odd, "must have one of"},
		{`echo '{"result":null}'`, Config{}, doubt, odd, "must have one of"},
		{`echo '{"result":"done","checkpoint":"x"}'`, Config{}, doubt, odd, "must have one of"},
		{`echo '{"result":"done","evidense":"x"}'`, Config{}, doubt, odd, `has the unknown field "evidense"`},
		{`echo '{"Result":"done"}'`, Config{}, doubt, odd, `has the unknown field "Result"`},
		{`echo '{"result":"retry","result":"done"}'`, Config{}, doubt, odd, `has twice the field "result"`},
		{`echo '{"result":"retry","code":13}'`, Config{}, doubt, odd, `wrong type in "code"`},
		{`echo '{"result":"retry","retry_after":"soon"}'`, Config{}, doubt, odd, `wrong type in "retry_after"`},
		{`echo '{"result":"retry","retry_after":-1}'`, Config{}, doubt, odd, "negative retry_after"},
		{`echo '{"result":"ok"}'`, Config{}, doubt, odd, `has the result "ok", which is not known`},
		{`echo '{"initial":true}'`, Config{}, doubt, odd, "for the mode look"},
		{`echo '{"checkpoint":""}'; echo '{"result":"done"}'`, Config{}, doubt, odd, "empty checkpoint"},
		{`printf '{"checkpoint":"%02049d"}\n' 1; echo '{"result":"done"}'`, Config{}, doubt, odd, "has a checkpoint of 2049 bytes"},
		{`echo '{"result":"done"}'; echo '{"result":"done"}'`, Config{}, doubt, odd, "line 2 comes after the result"},
		{`echo '{"result":"retry"}'; echo '{"progress":"on"}'`, Config{}, doubt, odd, "line 2 comes after the result"},
		{`echo '{"result":"done"}'; echo bye`, Config{}, doubt, odd, "line 2 is not"},
		{`printf '{"progress":"%040000d"}\n' 1; echo '{"result":"done"}'`, Config{}, doubt, odd, "line 1 is longer than 32768 bytes"},

		// Plain scripts.
		{`echo Success`, plain, isDone, "", ""},
		{`exit 75`, plain, worker.Retryable, "", "exit status 75"},
		{`exit 69`, plain, worker.Unreachable, "", "exit status 69"},
		{`exit 1`, plain, worker.Permanent, "", "the program failed: it ended with exit status 1"},
		{`exit 255`, plain, worker.Permanent, "", "exit status 255"},
		{`sh -c 'kill -9 $$'; exit $?`, plain, doubt, "", "a part of the program was ended by a signal"},
		{`kill -9 $$`, plain, doubt, "", "signal: killed"},
		{`echo Resetting; echo '{"result":"retry"}'; echo bye`, plain, worker.Retryable, "", ""},
		{`echo '{"result":"busy"}'; exit 1`, plain, worker.Busy, "", ""},
		{`echo '{"result":"done"}'; exit 1`, plain, doubt, odd, "said done, but"},
		{`echo '{ "what": 1 }'`, plain, doubt, odd, `unknown field "what"`},
	} {
		t.Run(row.script, func(t *testing.T) {
			t.Parallel()
			err := reset(t, row.cfg, row.script)
			if row.want == isDone {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			e := wantVerdict(t, err, row.want)
			if e.Code != row.code || !strings.Contains(e.Message, row.message) || e.Message == "" || e.EndsDoubt {
				t.Errorf("got %+v", e)
			}
		})
	}
}

func TestWhatAProgramSaysIsCut(t *testing.T) {
	t.Parallel()
	d, said := open(t, Config{}, `printf '{"result":"retry","retry_after":1e300,"code":"%0100d","message":"%02000dé","evidence":"\\u001b[2J%0253dé"}\n' 1 1 1`)
	e := wantVerdict(t, d.Reset(limited(t), attempt()), worker.Retryable)
	if len(e.Code) != maxCode || len(e.Message) != maxMessage || e.RetryAfter != time.Hour {
		t.Errorf("got %+v", e)
	}
	if got := strings.Join(said.lines, ""); len(got) > len("evidence: ")+worker.MaxEvidence || strings.ContainsRune(got, 0x1b) || !strings.HasPrefix(got, "evidence: ") {
		t.Errorf("logged %q", got)
	}
	err := reset(t, Config{}, `echo '{"result":"busy","retry_after":1.5}'`)
	if e := wantVerdict(t, err, worker.Busy); e.RetryAfter != 1500*time.Millisecond {
		t.Errorf("got %+v", e)
	}
}

func TestARunWithACheckpoint(t *testing.T) {
	t.Parallel()
	const saves = `echo '{"checkpoint":"job 7"}'; `
	given := func(a *worker.Attempt) { a.Ambiguous, a.Checkpoint = true, "job 7" }
	first := func(*worker.Attempt) {}
	repeated := func(a *worker.Attempt) { a.Ambiguous = true }
	unsaved := func(a *worker.Attempt) {
		a.Save = func(context.Context, string) error { return errors.New("Redis is away") }
	}
	for _, row := range []struct {
		name, script          string
		cfg                   Config
		attempt               func(*worker.Attempt)
		want                  worker.Verdict
		repeatable, endsDoubt bool
	}{
		{"is resumed after it was killed", saves + `kill -9 $$`, Config{}, first, worker.Unknown, true, false},
		{"is resumed after it gave no result", saves + `exit 1`, Config{}, first, worker.Unknown, true, false},
		{"is resumed once more", `exit 1`, Config{}, given, worker.Unknown, true, false},
		{"is not resumed if that was not saved", saves + `exit 1`, Config{}, unsaved, worker.Unknown, false, false},
		{"is not resumed if it makes no sense", saves + `echo what`, Config{}, first, worker.Unknown, false, false},
		{"is in doubt if the program says so", saves + `echo '{"result":"unknown"}'`, Config{}, first, worker.Unknown, false, false},
		{"is resumed if it cannot be watched", saves + `echo '{"result":"unreachable"}'`, Config{}, first, worker.Unknown, true, false},
		{"is resumed if the phone is busy", saves + `echo '{"result":"busy"}'`, Config{}, first, worker.Unknown, true, false},
		{"is resumed if a script's status says so", saves + `exit 69`, Config{ExitStatus: true}, first, worker.Unknown, true, false},
		{"waits for an upstream that is away", `echo '{"result":"unreachable"}'`, Config{}, given, worker.Unreachable, false, false},
		{"has failed", saves + `echo '{"result":"retry"}'`, Config{}, first, worker.Retryable, false, false},
		{"has failed, which ends the doubt", `echo '{"result":"retry"}'`, Config{}, given, worker.Retryable, false, true},
		{"has failed for good", `echo '{"result":"permanent"}'`, Config{}, given, worker.Permanent, false, true},
		{"that is a repeat says nothing of the first run", saves + `echo '{"result":"retry"}'`, Config{Repeatable: true}, repeated, worker.Retryable, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			d, _ := open(t, row.cfg, row.script)
			a := attempt()
			row.attempt(&a)
			e := wantVerdict(t, d.Reset(limited(t), a), row.want)
			if e.Repeatable != row.repeatable || e.EndsDoubt != row.endsDoubt || e.Message == "" {
				t.Errorf("got %+v", e)
			}
		})
	}
}

func TestWhoIsRunInDoubt(t *testing.T) {
	t.Parallel()
	const notRun = ""
	for _, row := range []struct {
		name       string
		cfg        Config
		checkpoint string
		sees       string // in mode look
		ran        string // the modes, and what it was told of doubt
		want       worker.Verdict
		repeatable bool
	}{
		{"nobody who has not said that it is harmless", Config{}, "", "", notRun, worker.Unknown, false},
		{"no plain script", Config{ExitStatus: true}, "", "", notRun, worker.Unknown, false},
		{"a program that may be repeated", Config{Repeatable: true}, "", "", "reset true\n", isDone, false},
		{"a program with a checkpoint", Config{}, "job 7", "", "reset true\n", isDone, false},
		{"a program with a checkpoint before it looks", Config{Look: true}, "job 7", `{"initial":true}`, "reset true\n", isDone, false},
		{"no program that can look, which is for the worker to do", Config{Look: true}, "", `{"initial":false}`, notRun, worker.Unknown, false},
		{"a program that can look and may be repeated", Config{Look: true, Repeatable: true}, "", `{"initial":false}`, "reset true\n", isDone, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			file := t.TempDir() + "/ran"
			asked := 0
			d, _ := open(t, row.cfg, `
				read -r request
				mode=$(echo "$request" | sed 's/.*"mode":"\([a-z]*\)".*/\1/')
				echo "$mode $(echo "$request" | sed 's/.*"ambiguous":\([a-z]*\).*/\1/')" >>`+file+`
				case $mode in look) echo '`+row.sees+`' ;; *) echo '{"result":"done"}' ;; esac`)
			a := attempt()
			a.Ambiguous, a.Checkpoint = true, row.checkpoint
			a.MaySend = func() error { asked++; return nil }
			err := d.Reset(limited(t), a)
			if row.want != isDone {
				if e := wantVerdict(t, err, row.want); e.Repeatable != row.repeatable {
					t.Errorf("got %+v", e)
				}
			} else if err != nil {
				t.Error(err)
			}
			if ran := read(t, file); ran != row.ran || asked != strings.Count(row.ran, "reset") {
				t.Errorf("it ran as %q, want %q; MaySend was asked %d times", ran, row.ran, asked)
			}
		})
	}
}
