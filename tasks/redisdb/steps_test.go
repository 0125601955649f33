package redisdb_test

import (
	"regexp"
	"strings"
	"testing"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// Tokens of two workers, as those make them.
const (
	tokenOfA = "AAAAAAAA22222222"
	tokenOfB = "BBBBBBBB33333333"
)

// finish ends an attempt.
func (w world) finish(t testing.TB, d tasks.Delivery, token string, o tasks.Outcome) {
	t.Helper()
	if _, err := w.db.Attempts.Finish(t.Context(), d, token, o, true); err != nil {
		t.Fatal(err)
	}
}

// rawItem is an item as the record has it.
func (w world) rawItem(t testing.TB, job tasks.Job) string {
	t.Helper()
	return w.rdb.HGet(t.Context(), "reset:{"+job.ID+"}", "0").Val()
}

func TestARecordSaysWhoMadeAnAttemptAndHowFarItCame(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		d, _ := w.begin(t, job, 0, tokenOfA)
		if last := w.read(t, job.ID).Items[0].Last; last.Worker != "AAAAAAAA" || last.MaySend || last.StartedAt.IsZero() {
			t.Errorf("while it runs: %+v", last)
		}
		if err := w.db.Attempts.Send(t.Context(), d, tokenOfA, ""); err != nil {
			t.Fatal(err)
		}
		if last := w.read(t, job.ID).Items[0].Last; !last.MaySend {
			t.Errorf("once it may send: %+v", last)
		}
		w.finish(t, d, tokenOfA, tasks.Outcome{Transition: tasks.Retry, Code: "CPS.0003", Busy: true, Steps: "s20 l300"})
		it := w.read(t, job.ID).Items[0]
		if len(it.History) != 1 || it.History[0].Worker != "AAAAAAAA" || it.History[0].Steps != "s20 l300" || it.Last != (tasks.LastAttempt{}) {
			t.Errorf("after it: %+v", it)
		}
		// The next one dies with its worker, and a third one succeeds.
		w.begin(t, job, 0, tokenOfB)
		w.begin(t, job, 0, tokenOfA)
		w.finish(t, d, tokenOfA, tasks.Outcome{Transition: tasks.Succeed, Steps: "s7"})
		it = w.read(t, job.ID).Items[0]
		if len(it.History) != 2 || it.History[1].Worker != "BBBBBBBB" || it.History[1].Outcome != "lost" || it.History[1].Steps != "" {
			t.Errorf("what was lost: %+v", it.History)
		}
		if last := it.Last; last.Worker != "AAAAAAAA" || last.Steps != "s7" || last.StartedAt.Before(it.History[1].FinishedAt.Time) {
			t.Errorf("what succeeded: %+v", last)
		}
	})
}

func TestAnItemThatSucceedsAtOnceStaysShort(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		for evidence, want := range map[string]string{
			"":       `^s 1 \d+ \d+ phone-1$`,
			"boot 2": `^s 1 \d+ \d+ phone-1 \{.*"wk":"AAAAAAAA".*\}$`,
		} {
			job := w.submit(t, "phone-1")
			d, _ := w.begin(t, job, 0, tokenOfA)
			w.finish(t, d, tokenOfA, tasks.Outcome{Transition: tasks.Succeed, Evidence: evidence, Steps: "s20"})
			if raw := w.rawItem(t, job); !regexp.MustCompile(want).MatchString(raw) {
				t.Errorf("with evidence %q it is %q, want %s", evidence, raw, want)
			}
		}
	})
}

func TestWhatAnotherVersionRemembersOfAnAttemptStays(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		d, _ := w.begin(t, job, 0, "t1") // a token of an old version
		w.finish(t, d, "t1", tasks.Outcome{Transition: tasks.Retry})
		it := w.read(t, job.ID).Items[0]
		if len(it.History) != 1 || it.History[0].Worker != "" || it.History[0].Steps != "" {
			t.Errorf("history %+v", it.History)
		}
		raw := strings.Replace(w.rawItem(t, job), `"n":1`, `"n":1,"newer":"x"`, 1)
		w.rdb.HSet(t.Context(), "reset:{"+job.ID+"}", "0", raw)
		d, _ = w.begin(t, job, 0, tokenOfA)
		w.finish(t, d, tokenOfA, tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0005", Steps: "s1"})
		if raw := w.rawItem(t, job); !strings.Contains(raw, `"newer":"x"`) {
			t.Errorf("it is %s", raw)
		}
		// A retry of the job keeps it, too.
		if err := w.db.Records.Retry(t.Context(), job.ID, []tasks.ItemState{tasks.ItemFailed}, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if h := w.read(t, job.ID).Items[0].History; len(h) != 2 || h[1].Worker != "AAAAAAAA" || h[1].Steps != "s1" {
			t.Errorf("history %+v", h)
		}
	})
}
