package redisdb_test

import (
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// What holds a job is in the record that its caller reads, in all ways to ask for its version, and goes with what holds it.
func TestACallersRecordSaysWhatHoldsIt(t *testing.T) {
	t.Parallel()
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		t.Parallel()
		run, err := w.db.Runs.Create(t.Context(), ofRun(32, "k"))
		if err != nil {
			t.Fatal(err)
		}
		plain := w.submit(t, "a", "b")
		later := w.submitOf(t, tasks.Submission{Tenant: "acme", NotBefore: tasks.Time{Time: w.db.Redis.Now().Add(time.Hour)}}, "c")
		part := w.submitOf(t, tasks.Submission{Tenant: "acme", RunID: run.ID}, "phone-0")
		last := map[string]string{}
		check := func(what string, job tasks.Job, reason string, changes bool) {
			t.Helper()
			got, err := w.db.HeldJobs.Job(t.Context(), job.ID)
			if err != nil || got.Held.Reason != reason || (reason != "") == got.Held.Since.IsZero() {
				t.Errorf("%s: held %+v, %v, want %q", what, got.Held, err, reason)
			}
			version, err := w.db.HeldJobs.Version(t.Context(), job.ID)
			tags, err2 := w.db.HeldJobs.Tags(t.Context(), []string{job.ID})
			if err != nil || err2 != nil || version.Tag() != got.Tag() || tags[job.ID] != got.Tag() {
				t.Errorf("%s: tags %q, %q and %q, %v, %v", what, got.Tag(), version.Tag(), tags[job.ID], err, err2)
			}
			if changed := last[job.ID] != got.Tag(); changed != changes {
				t.Errorf("%s: the tag was %q and is %q", what, last[job.ID], got.Tag())
			}
			last[job.ID] = got.Tag()
		}
		at := later.NotBefore.UTC().Format(time.RFC3339)
		check("at first", plain, "", true)
		check("with a time", later, "not_before is "+at, true)
		check("of a run", part, "", true)
		if err := w.db.RunDecisions.Pause(t.Context(), run.ID, tasks.Actor{Reason: "smoke"}); err != nil {
			t.Fatal(err)
		}
		check("of a run that is paused", part, "the run is paused by hand: smoke", true)
		check("of none", plain, "", false)
		if err := w.db.Policies.Halt(t.Context(), "acme", tasks.HaltedByOperator, tasks.Actor{Reason: "recall"}); err != nil {
			t.Fatal(err)
		}
		const halted = "resets of the tenant are halted: recall"
		check("halted", plain, halted, true)
		check("halted", plain, halted, false)
		check("halted, with a time", later, halted, true)
		list, _, err := w.db.HeldJobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 10})
		if err != nil || len(list) != 3 || list[0].Held.Reason != halted {
			t.Errorf("listed %+v, %v", list, err)
		}
		if err := w.db.Policies.Resume(t.Context(), "acme", tasks.HaltedByOperator, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		check("resumed", plain, "", true)
		if err := w.db.RunDecisions.Resume(t.Context(), run.ID, nil, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if err := w.db.Policies.Halt(t.Context(), "", tasks.HaltedByOperator, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if got, err := w.db.Runs.Run(t.Context(), run.ID); err != nil || got.Held.Reason != "resets of all tenants are halted" {
			t.Errorf("run held %+v, %v", got.Held, err)
		}
		// One that has ended is held by nothing.
		if err := w.db.Records.Cancel(t.Context(), plain.ID, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		check("ended", plain, "", true)
	})
}
