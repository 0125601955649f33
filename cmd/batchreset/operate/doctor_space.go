package operate

import (
	"context"
	"fmt"
	"strings"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/views"
)

// familiesNamed is how many families of keys are named in a line.
const familiesNamed = 3

// lookAtSpace looks what fills the servers, and at what they keep on disk.
func lookAtSpace(ctx context.Context, found *terminal.Checkup, db *redisdb.DB) {
	all, err := db.Space.Look(ctx, views.DefaultSpaceBounds)
	if err != nil {
		found.Fail("space", "look at Redis's own log", "what fills Redis is not known: %v", terminal.WithoutCode(err))
		return
	}
	for _, s := range all {
		lookAtFiles(found, s)
		if s.Refused > 0 {
			found.Skip(fmt.Sprintf("the size of %s of %s", terminal.Plural(int(s.Refused), "key"), s.Address), "the Redis user may not ask: the one of the operators may, about all keys of this service")
		}
		if s.LastingCount > 0 {
			found.Warn("expiry", "these should expire and do not: find out who wrote them, and give them a time to live (PEXPIRE), or delete them once nobody needs them",
				"%s: %s without an expiry that should have one, such as %s", s.Address, terminal.Plural(int(s.LastingCount), "key"), strings.Join(s.Lasting, ", "))
		} else {
			found.OK("expiry", "%s: of %s that %s looked at, all that should expire do", s.Address, terminal.Plural(int(s.Looked), "key"), wasOrWere(s.Looked))
		}
		found.OK("space", "%s: %s", s.Address, spaceText(s))
	}
	found.Space = all
}

func wasOrWere(n int64) string {
	if n == 1 {
		return "was"
	}
	return "were"
}

// spaceText names what takes most.
func spaceText(s tasks.Space) string {
	var parts []string
	for _, f := range s.Families[:min(len(s.Families), familiesNamed)] {
		parts = append(parts, f.Name+" "+terminal.Bytes(f.Bytes))
	}
	if parts == nil {
		return "no keys"
	}
	text := strings.Join(parts, ", ")
	if s.Looked < s.Keys {
		text += fmt.Sprintf("; estimated from %d of %d keys", s.Looked, s.Keys)
	}
	return text
}

// lookAtFiles looks whether what is in memory gets to disk.
func lookAtFiles(found *terminal.Checkup, s tasks.Space) {
	f := s.Files
	text := fmt.Sprintf("%s: no append-only file", s.Address)
	if f.AppendOnly {
		text = fmt.Sprintf("%s: the append-only file has %s", s.Address, terminal.Bytes(f.AppendBytes))
	}
	if !f.SavedAt.IsZero() {
		text += fmt.Sprintf("; last snapshot %s, %d changes since", terminal.Clock(f.SavedAt.Time), f.Unsaved)
	}
	const advice = "is there room on Redis's disk, and memory for a fork? Look at Redis's own log"
	switch {
	case f.WriteFails:
		found.Fail("files", advice, "%s; the append-only file cannot be written", text)
	case f.SaveFails:
		found.Fail("files", advice, "%s; the last snapshot could not be written", text)
	case f.RewriteFails:
		found.Warn("files", advice, "%s; the append-only file could not be rewritten, and goes on growing", text)
	default:
		found.OK("files", "%s", text)
	}
}
