package worker

import (
	"testing"
	"time"

	"batchreset/tasks"
)

func TestBackoffSchedule(t *testing.T) {
	want := []time.Duration{
		1 * time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second,
		32 * time.Second, 64 * time.Second, 128 * time.Second, 256 * time.Second,
		5 * time.Minute, 5 * time.Minute,
	}
	for i, d := range want {
		if got := Backoff(i + 1); got != d {
			t.Errorf("after failure %d: at most %s, want %s", i+1, got, d)
		}
	}
	if got := Backoff(1000); got != backoffCap {
		t.Errorf("after failure 1000: %s", got)
	}
}

func TestWaitSchedule(t *testing.T) {
	for _, row := range []struct{ waited, want time.Duration }{
		{0, time.Second},
		{time.Second, time.Second},
		{2 * time.Second, 2 * time.Second},
		{20 * time.Second, 20 * time.Second},
		{40 * time.Second, 30 * time.Second},
		{29 * time.Minute, 30 * time.Second},
	} {
		if got := waitDelay(row.waited); got != row.want {
			t.Errorf("after waiting %s: %s, want %s", row.waited, got, row.want)
		}
	}
}

func TestJudge(t *testing.T) {
	first := tasks.Begun{Number: 1}
	inDoubt := tasks.Begun{Number: 2, Ambiguous: true}
	lastTry := tasks.Begun{Number: 9, Failures: 4}
	for _, row := range []struct {
		name  string
		err   *DriverError
		in    circumstances
		want  tasks.Outcome
		delay [2]time.Duration // from, to; only for Retry
		keeps bool             // the lock is left to lapse
	}{
		{
			name: "success ends the item",
			in:   circumstances{begun: first},
			want: tasks.Outcome{Transition: tasks.Succeed},
		}, {
			name:  "a failure is retried within the backoff",
			err:   &DriverError{Verdict: Retryable, Code: "CPS.0003", Message: "internal error"},
			in:    circumstances{begun: first},
			want:  tasks.Outcome{Transition: tasks.Retry, Code: "CPS.0003", Message: "internal error", Failure: true},
			delay: [2]time.Duration{1, time.Second},
		}, {
			name:  "a failure without a code gets ours",
			err:   &DriverError{Verdict: Retryable},
			in:    circumstances{begun: first},
			want:  tasks.Outcome{Transition: tasks.Retry, Code: tasks.ResetFailed, Failure: true},
			delay: [2]time.Duration{1, time.Second},
		}, {
			name:  "Retry-After wins over the backoff",
			err:   &DriverError{Verdict: Retryable, RetryAfter: 42 * time.Second},
			in:    circumstances{begun: first},
			want:  tasks.Outcome{Transition: tasks.Retry, Code: tasks.ResetFailed, Failure: true},
			delay: [2]time.Duration{42 * time.Second, 63 * time.Second},
		}, {
			name: "the fifth failure is the last",
			err:  &DriverError{Verdict: Retryable, Code: "CPS.0003"},
			in:   circumstances{begun: lastTry},
			want: tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0003", Failure: true},
		}, {
			name: "a permanent error is not retried",
			err:  &DriverError{Verdict: Permanent, Code: "CPS.0005"},
			in:   circumstances{begun: first},
			want: tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0005", Failure: true},
		}, {
			name:  "a busy instance uses no retry",
			err:   &DriverError{Verdict: Busy},
			in:    circumstances{begun: lastTry},
			want:  tasks.Outcome{Transition: tasks.Retry, Code: tasks.ResetFailed, Busy: true},
			delay: [2]time.Duration{1, waitCap},
		}, {
			name:  "an upstream that cannot be reached uses no retry",
			err:   &DriverError{Verdict: Unreachable},
			in:    circumstances{begun: lastTry},
			want:  tasks.Outcome{Transition: tasks.Retry, Code: tasks.ResetFailed},
			delay: [2]time.Duration{1, waitCap},
		}, {
			name:  "a busy answer does not end the doubt about an earlier call",
			err:   &DriverError{Verdict: Busy},
			in:    circumstances{begun: inDoubt},
			want:  tasks.Outcome{Transition: tasks.Retry, Code: tasks.ResetFailed, Busy: true, InDoubt: true},
			delay: [2]time.Duration{1, waitCap},
			keeps: true,
		}, {
			name:  "an unknown outcome ends the item and leaves the instance locked",
			err:   &DriverError{Verdict: Unknown},
			in:    circumstances{begun: first},
			want:  tasks.Outcome{Transition: tasks.LoseTrack, Code: tasks.TimedOut, InDoubt: true},
			keeps: true,
		}, {
			name:  "an unknown outcome after a lost worker says so",
			err:   &DriverError{Verdict: Unknown},
			in:    circumstances{begun: inDoubt},
			want:  tasks.Outcome{Transition: tasks.LoseTrack, Code: tasks.WorkerLost, InDoubt: true},
			keeps: true,
		}, {
			name:  "an unknown outcome is repeated where that is harmless",
			err:   &DriverError{Verdict: Unknown, Repeatable: true},
			in:    circumstances{begun: first},
			want:  tasks.Outcome{Transition: tasks.Retry, Code: tasks.TimedOut, Unanswered: true, InDoubt: true},
			delay: [2]time.Duration{1, time.Second},
			keeps: true,
		}, {
			name:  "which uses none of the retries for definite failures",
			err:   &DriverError{Verdict: Unknown},
			in:    circumstances{begun: lastTry, repeatable: true},
			want:  tasks.Outcome{Transition: tasks.Retry, Code: tasks.TimedOut, Unanswered: true, InDoubt: true},
			delay: [2]time.Duration{1, time.Second},
			keeps: true,
		}, {
			name:  "but not for ever",
			err:   &DriverError{Verdict: Unknown},
			in:    circumstances{begun: tasks.Begun{Number: 5, Unanswered: 4}, repeatable: true},
			want:  tasks.Outcome{Transition: tasks.LoseTrack, Code: tasks.TimedOut, InDoubt: true},
			keeps: true,
		}, {
			name:  "a refusal says nothing about an earlier call in doubt",
			err:   &DriverError{Verdict: Retryable, Code: "429"},
			in:    circumstances{begun: inDoubt, repeatable: true},
			want:  tasks.Outcome{Transition: tasks.Retry, Code: "429", Failure: true, InDoubt: true},
			delay: [2]time.Duration{1, time.Second},
			keeps: true,
		}, {
			name: "nor does one for good",
			err:  &DriverError{Verdict: Permanent, Code: "403"},
			in:   circumstances{begun: inDoubt, repeatable: true},
			want: tasks.Outcome{
				Transition: tasks.LoseTrack, Code: tasks.TimedOut, Failure: true, InDoubt: true,
				Message: "an earlier call may still be going on; the last one was refused: 403",
			},
			keeps: true,
		}, {
			name: "nor does the last that the budget allows",
			err:  &DriverError{Verdict: Retryable, Code: "429", Message: "slow down"},
			in:   circumstances{begun: tasks.Begun{Number: 7, Failures: 4, Ambiguous: true}, repeatable: true},
			want: tasks.Outcome{
				Transition: tasks.LoseTrack, Code: tasks.TimedOut, Failure: true, InDoubt: true,
				Message: "an earlier call may still be going on; the last one was refused: 429 slow down",
			},
			keeps: true,
		}, {
			name:  "an answer about the earlier call ends its doubt",
			err:   &DriverError{Verdict: Retryable, Code: "CPS.0003", EndsDoubt: true},
			in:    circumstances{begun: inDoubt, repeatable: true},
			want:  tasks.Outcome{Transition: tasks.Retry, Code: "CPS.0003", Failure: true},
			delay: [2]time.Duration{1, time.Second},
		}, {
			name: "also for good",
			err:  &DriverError{Verdict: Permanent, Code: "CPS.0003", EndsDoubt: true},
			in:   circumstances{begun: inDoubt, repeatable: true},
			want: tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0003", Failure: true},
		}, {
			name:  "no upstream puts an item off for longer than an hour and what spreads the rest",
			err:   &DriverError{Verdict: Retryable, RetryAfter: 999999999 * time.Second},
			in:    circumstances{begun: first},
			want:  tasks.Outcome{Transition: tasks.Retry, Code: tasks.ResetFailed, Failure: true},
			delay: [2]time.Duration{time.Hour, 90 * time.Minute},
		}, {
			name:  "an interrupted attempt is handed back at once and uses no retry",
			err:   &DriverError{Verdict: Unknown},
			in:    circumstances{begun: lastTry, repeatable: true, interrupted: true},
			want:  tasks.Outcome{Transition: tasks.Retry, Code: tasks.TimedOut, InDoubt: true},
			keeps: true,
		}, {
			name:  "an interrupted attempt that cannot be repeated is unknown",
			err:   &DriverError{Verdict: Unknown},
			in:    circumstances{begun: first, interrupted: true},
			want:  tasks.Outcome{Transition: tasks.LoseTrack, Code: tasks.TimedOut, InDoubt: true},
			keeps: true,
		}, {
			name: "an attempt interrupted before it was sent is handed back",
			err:  &DriverError{Verdict: Unreachable},
			in:   circumstances{begun: first, interrupted: true},
			want: tasks.Outcome{Transition: tasks.Retry, Code: tasks.ResetFailed},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.in.maxFailures = 5
			got := judge(row.err, row.in)
			if got.outcome != row.want {
				t.Errorf("outcome %+v, want %+v", got.outcome, row.want)
			}
			if got.outcome.Transition == tasks.Retry && (got.delay < row.delay[0] || got.delay > row.delay[1]) {
				t.Errorf("delay %s, want %v", got.delay, row.delay)
			}
			if got.unlock == row.keeps {
				t.Errorf("unlock is %t", got.unlock)
			}
		})
	}
}
