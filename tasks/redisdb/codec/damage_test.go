package codec_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/cmd/harness/faketime"
	"batchreset/tasks/redisdb/codec"
)

// answered is an error that Redis has answered with.
type answered string

func (a answered) Error() string { return string(a) }

func (answered) RedisError() {}

func TestOnlyWhatCannotBeReadIsLeftOut(t *testing.T) {
	for _, row := range []struct {
		name    string
		err     error
		leftOut bool
	}{
		{"nothing", nil, false},
		{"damage", &codec.Damage{Err: errors.New("no number")}, true},
		{"damage that somebody wrapped", fmt.Errorf("list: %w", &codec.Damage{Err: errors.New("no number")}), true},
		{"a key of another type", fmt.Errorf("read: %w", answered("WRONGTYPE Operation against a key")), true},
		{"a key of another type, met by a script", answered("ERR Error running script: WRONGTYPE Operation against a key"), true},
		{"a Redis that is loading", answered("LOADING Redis is loading the dataset in memory"), false},
		{"a Cluster without a primary", answered("CLUSTERDOWN The cluster is down"), false},
		{"a user who may not read", answered("NOPERM No permissions to access a key"), false},
		{"a Redis that is away", errors.New("connection refused"), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			var log bytes.Buffer
			err := codec.NewLeftOut(slog.New(slog.NewTextHandler(&log, nil))).Note("job 1", row.err)
			if row.leftOut && (err != nil || !strings.Contains(log.String(), "job 1")) || !row.leftOut && (!errors.Is(err, row.err) || log.Len() > 0) {
				t.Errorf("got %v, and the log %q", err, log.String())
			}
		})
	}
}

// A list is asked for again and again: the log has each thing once in ten minutes.
func TestWhatIsLeftOutIsLoggedOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		leftOut := codec.NewLeftOut(slog.New(slog.NewTextHandler(&log, nil)))
		note := func(what string) {
			if err := leftOut.Note(what, &codec.Damage{Err: errors.New("no number")}); err != nil {
				t.Error(err)
			}
		}
		want := func(lines int) {
			t.Helper()
			if n := strings.Count(log.String(), "\n"); n != lines {
				t.Errorf("%d lines, want %d:\n%s", n, lines, log.String())
			}
		}
		note("job 1")
		note("job 1")
		want(1)
		note("job 2")
		want(2)
		faketime.Pass(11 * time.Minute)
		note("job 1")
		want(3)
	})
}
