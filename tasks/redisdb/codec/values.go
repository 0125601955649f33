package codec

import (
	"strconv"

	"batchreset/tasks"
)

// Number reads an integer from an answer of Redis, 0 if it is none.
func Number(v any) int64 {
	n, _ := v.(int64)
	return n
}

// Text reads a string from an answer of Redis, "" if it is none.
func Text(v any) string {
	s, _ := v.(string)
	return s
}

// Flag is a bool as scripts and records have it.
func Flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// Millis reads a time in ms since 1970, zero if there is none.
func Millis(s string) tasks.Time {
	ms, _ := strconv.ParseInt(s, 10, 64) // absent: zero
	return tasks.FromMillis(ms)
}

// Revision reads the fields "created" and "rev" of a job record. created is zero if there is no
// record.
func Revision(created, rev any) (at tasks.Time, revision int64, err error) {
	f := numbers{fields: []string{Text(created), Text(rev)}}
	at, revision = tasks.FromMillis(f.count(0)), f.count(1)
	return at, revision, f.err
}
