package registry_test

import (
	"errors"
	"fmt"
	"testing"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/registry"
)

func TestOnlyAWriteWithoutRoomIsNewWorkThatWasRefused(t *testing.T) {
	const text = "OOM command not allowed when used memory > 'maxmemory'."
	oom := errors.New(text)
	for _, row := range []struct {
		name string
		err  error
		code tasks.Code // of what becomes of it
	}{
		{"nothing", nil, tasks.OK},
		{"a Redis without room", fmt.Errorf("create: %w", oom), tasks.StorageFull},
		{"the same out of a script of Redis 6.2", errors.New("ERR Error running script: @user_script:7: -" + text), tasks.StorageFull},
		{"a job that stands without its tasks was accepted", &tasks.UndeliveredError{Job: "j", Cause: oom}, tasks.Internal},
		{"a Redis that is away", errors.New("connection refused"), tasks.Internal},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := registry.OrFull(row.err)
			if !errors.Is(got, row.err) {
				t.Errorf("the cause is lost: %v", got)
			}
			if tasks.CodeOf(got) != row.code {
				t.Errorf("got %v", got)
			}
		})
	}
}
