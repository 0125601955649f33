package redisdb_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// failedLogins are the entries that a process leaves in which somebody guesses.
func failedLogins(t *testing.T, guess func(db *redisdb.DB)) (entries []string) {
	t.Helper()
	opts := redisdb.Options{URL: redistest.Start(t).URL()}
	var told []string
	opts.Audited = func(e tasks.AuditEntry, _ error) { told = append(told, e.Detail) }
	db, err := redisdb.Open(t.Context(), opts)
	must(t, err)
	guess(db)
	must(t, db.Close()) // which writes what waits for its minute to be over
	db, err = redisdb.Open(t.Context(), opts)
	must(t, err)
	defer func() { must(t, db.Close()) }()
	var details []string
	must(t, db.Audit.Trail(t.Context(), tasks.AuditFilter{Action: tasks.ActionFailedLogin}, func(e tasks.AuditEntry) error {
		entries, details = append(entries, e.By+" from "+e.From+" "+e.Detail), append(details, e.Detail)
		return nil
	}))
	if !slices.Equal(details, told) {
		t.Errorf("told of %q, written %q", told, details)
	}
	return entries
}

func TestFailedLogInsDoNotFillTheTrail(t *testing.T) {
	got := failedLogins(t, func(db *redisdb.DB) {
		for n := range 1000 {
			name := ""
			if n%4 == 0 {
				name = "alice"
			}
			db.Audit.FailedLogin(t.Context(), name, fmt.Sprintf("192.0.2.%d", n%7))
		}
		for n := range 50 {
			db.Audit.FailedLogin(t.Context(), fmt.Sprintf("operator-%02d", n), "192.0.2.9")
		}
	})
	if len(got) != 11 || got[0] != "dashboard from 192.0.2.0 as alice" || got[1] != "dashboard from 192.0.2.1 as nobody who is known" {
		t.Fatalf("trail\n%s", strings.Join(got, "\n"))
	}
	want := "dashboard from 192.0.2.9 1040 more: 247 as alice, 743 as nobody who is known, 1 as operator-00, 1 as operator-01, "
	if last := got[10]; !strings.HasPrefix(last, want) || !strings.HasSuffix(last, "1 as operator-07, …") {
		t.Errorf("%q", last)
	}
}

func TestAFailedLogInThatCannotBeWrittenIsInTheNextEntry(t *testing.T) {
	got := failedLogins(t, func(db *redisdb.DB) {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		db.Audit.FailedLogin(gone, "alice", "192.0.2.1")
	})
	if want := []string{"dashboard from 192.0.2.1 1 more: 1 as alice"}; !slices.Equal(got, want) {
		t.Errorf("trail %q", got)
	}
}
