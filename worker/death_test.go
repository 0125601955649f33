package worker_test

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// checkCalls compares the calls for an item with its attempts.
func (s *scene) checkCalls(t *testing.T, it tasks.Item, want int) {
	t.Helper()
	calls := s.callsOf(it.InstanceID)
	if len(calls) != want || len(calls) > it.Attempts {
		t.Errorf("calls %+v for %d attempts, want %d", calls, it.Attempts, want)
	}
	for n, c := range calls {
		if c.Key != calls[0].Key || n > 0 && c.Attempt <= calls[n-1].Attempt {
			t.Errorf("calls %+v: want one key, and one call an attempt", calls)
		}
	}
}

// checkLost wants the first attempts of an item in its history, as lost.
func checkLost(t *testing.T, it tasks.Item, want int) {
	t.Helper()
	lost := 0
	for n, past := range it.History {
		if past.Outcome == "lost" && past.Number == n+1 && !past.FinishedAt.IsZero() {
			lost++
		}
	}
	if lost != want {
		t.Errorf("history %+v, want %d lost attempts", it.History, want)
	}
}

func TestAWorkerKilledInEachPhase(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "databases 32")
	database := 0
	for _, tt := range []struct {
		phase phase
		lost  int // attempts
		// The calls in the end, and whether the outcome is known: with a driver
		// that may repeat a call it always is.
		repeating, once int
		unknown         bool
	}{
		{phase: beforeBegin, repeating: 1, once: 1},
		{phase: afterBegin, lost: 1, repeating: 1, once: 1},
		{phase: inDriver, lost: 1, repeating: 1, once: 1},
		{phase: connected, lost: 1, repeating: 1, once: 1},
		{phase: received, lost: 1, repeating: 2, once: 1, unknown: true},
		{phase: beforeSave, lost: 1, repeating: 2, once: 1, unknown: true},
		{phase: afterSave, lost: 1, repeating: 1, once: 1},
		{phase: beforeFinish, lost: 1, repeating: 2, once: 1, unknown: true},
		{phase: afterFinish, repeating: 1, once: 1},
	} {
		for _, idempotent := range []bool{true, false} {
			database++
			url := fmt.Sprintf("%s/%d", server.URL(), database)
			name, calls, want := string(tt.phase)+"; may repeat", tt.repeating, tasks.ItemSucceeded
			if !idempotent {
				name, calls = string(tt.phase)+"; may not repeat", tt.once
				if tt.unknown {
					want = tasks.ItemUnknown
				}
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				p := newPlane(t, tt.phase == beforeSave || tt.phase == afterSave)
				s := newScene(t, p, idempotent, redisdb.Options{URL: url})
				job := s.submit(t, "phone-1")
				first := job.Deliveries()[0].TaskID()
				s.startChild(t, syscall.SIGKILL, tt.phase, "").waitKilled(t)
				s.takeOver(t, time.Minute)
				s.startHealthy(t)

				it := s.waitFinal(t, job.ID).Items[0]
				if it.State != want || it.Attempts != tt.lost+1 {
					t.Errorf("item %+v, want it %s after %d attempts", it, want, tt.lost+1)
				}
				if want == tasks.ItemUnknown && (it.Code != tasks.WorkerLost || !strings.Contains(it.Message, "a worker was lost")) {
					t.Errorf("the caller is told %s: %s", it.Code, it.Message)
				}
				checkLost(t, it, tt.lost)
				if tt.phase == afterFinish {
					s.begun.check(t, 0, 0)
				} else {
					s.begun.check(t, 1, tt.lost)
				}

				// asynq gives the dead worker's task to someone, much later.
				record := s.record(t, job.ID)
				harness.Eventually(t, patience, "the late task is dropped", func() bool {
					_, err := s.inspector.RunAllRetryTasks(queue)
					_, gone := s.inspector.GetTaskInfo(queue, first)
					return err == nil && errors.Is(gone, asynq.ErrTaskNotFound)
				})
				if after := s.record(t, job.ID); !maps.Equal(record, after) {
					t.Errorf("the late task turned %v into %v", record, after)
				}
				s.checkCalls(t, it, calls)
				if s.locked(t, "phone-1") != (want == tasks.ItemUnknown) {
					t.Error("the instance is to stay locked if and only if its reset may be going on")
				}
			})
		}
	}
}

func TestAFrozenWorkerThatThaws(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for n, tt := range []struct {
		phase  phase
		calls  int    // of both workers
		says   string // the child, when it has thawed
		inTime bool   // it thaws before its attempt's time is over
	}{
		{phase: afterBegin, calls: 1, says: "nothing was sent"},
		{phase: inDriver, calls: 1, says: "nothing was sent"},
		{phase: connected, calls: 1, says: "the attempt's time was over before the request was sent"},
		{phase: connected, calls: 1, says: "the process stood still for so long", inTime: true},
		{phase: beforeSave, calls: 2},
		{phase: beforeFinish, calls: 2, says: "event=succeed"},
	} {
		name := string(tt.phase)
		if tt.inTime {
			name += ", in time"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t, tt.phase == beforeSave)
			s := newScene(t, p, true, redisdb.Options{URL: fmt.Sprintf("%s/%d", server.URL(), n)})
			s.child.Timeout = time.Second
			frozen := s.child.Timeout
			if tt.inTime {
				s.child.Timeout, frozen = time.Minute, 16*time.Second // others may have it after 25 s
			}
			job := s.submit(t, "phone-1")
			c := s.startChild(t, syscall.SIGSTOP, tt.phase, "")
			c.waitFrozen(t)
			deadline := time.Now().Add(frozen)
			s.takeOver(t, time.Second)
			s.startHealthy(t)
			it := s.waitFinal(t, job.ID).Items[0]
			if it.State != tasks.ItemSucceeded || it.Attempts != 2 {
				t.Errorf("item %+v", it)
			}
			checkLost(t, it, 1)
			s.checkCalls(t, it, tt.calls)
			record := s.record(t, job.ID)

			sleepUntil(deadline)
			c.thaw(t)
			if after := s.record(t, job.ID); !maps.Equal(record, after) {
				t.Errorf("the thawed attempt turned %v into %v", record, after)
			}
			s.checkCalls(t, it, tt.calls)
			if s.locked(t, "phone-1") {
				t.Error("the thawed attempt left the instance locked")
			}
			for _, want := range []string{tt.says, tasks.WrongToken.Error()} {
				if !strings.Contains(c.log.String(), want) {
					t.Errorf("the child does not say %q", want)
				}
			}
		})
	}
}

func TestAnItemThatKillsItsWorkerEveryTime(t *testing.T) {
	t.Parallel()
	s := newScene(t, newPlane(t, false), true, redisdb.Options{URL: redistest.Start(t).URL(), GiveUpAfter: 8 * time.Second})
	job := s.submit(t, "phone-1", "deadly", "phone-2", "phone-3")
	const deadly = 1
	run := func(id string) {
		t.Helper()
		for n := range job.Items { // its time has come
			record, field := "reset:{"+job.ID+"}", strconv.Itoa(n)
			raw := s.rdb.HGet(t.Context(), record, field).Val()
			s.rdb.HSet(t.Context(), record, field, regexp.MustCompile(`,"w":\d+|"w":\d+,`).ReplaceAllString(raw, ""))
		}
		if err := s.inspector.RunTask(queue, id); err != nil {
			t.Fatal(err)
		}
	}
	task := job.Deliveries()[deadly].TaskID()
	// The delays after each death. While the item waits, others have the worker.
	for n, delay := range []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second} {
		c := s.startChild(t, syscall.SIGKILL, received, "deadly")
		if n >= 2 {
			other := s.waitFinal(t, s.submit(t, "phone-4", "phone-5").ID)
			if other.State != tasks.JobSucceeded || other.Items[0].Attempts != 1 || other.Items[1].Attempts != 1 {
				t.Errorf("the other job %+v", other)
			}
			run(task)
		}
		c.waitKilled(t)

		before := time.Now().Truncate(time.Second)
		s.takeOver(t, time.Second)
		it := s.job(t, job.ID).Items[deadly]
		task = tasks.Delivery{ItemID: it.ID, Number: it.Delivery, Epoch: job.Epoch}.TaskID()
		info, err := s.inspector.GetTaskInfo(queue, task)
		if err != nil {
			t.Fatal(err)
		}
		if it.Attempts != n+1 || it.State != tasks.ItemRetrying {
			t.Fatalf("item %+v", it)
		}
		if delay == 0 {
			if info.State != asynq.TaskStatePending {
				t.Errorf("the first death delays the item: %+v", info)
			}
		} else if at := info.NextProcessAt; at.Before(before.Add(delay)) || at.After(time.Now().Add(delay)) {
			t.Errorf("delayed until %s by death %d at %s, want %s", at, n+1, before, delay)
		}
		// Those that died with it.
		scheduled, err := s.inspector.ListScheduledTasks(queue)
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range scheduled {
			if info.ID != task {
				run(info.ID)
			}
		}
	}

	sleepUntil(job.EndBefore.Add(time.Millisecond))
	s.startHealthy(t)
	run(task)
	job = s.waitFinal(t, job.ID)
	if job.State != tasks.JobPartial || job.Counts.Succeeded != 3 {
		t.Errorf("job %+v", job)
	}
	it := job.Items[deadly]
	if it.State != tasks.ItemUnknown || it.Code != tasks.NotInTime || it.Attempts != 4 || it.Message == "" {
		t.Errorf("item %+v", it)
	}
	checkLost(t, it, 4)
	s.checkCalls(t, it, 4)
}
