package history

import (
	"strings"
	"testing"

	"batchreset/cmd/chaos/fault"
	"batchreset/tasks"
)

func TestAHaltHoldsAfterASecond(t *testing.T) {
	halt := broke(10, 15, fault.HaltAll, "operator")
	for _, row := range []struct {
		name   string
		redis  string
		call   float64
		others []Event
		broken bool
	}{
		{"before it", "always", 9, nil, false},
		{"in its first second", "always", 10.9, nil, false},
		{"after it", "always", 15.1, nil, false},
		{"in the middle", "always", 12, nil, true},
		{"in the middle, held up on the way", "always", 12, []Event{broke(9, 11.5, fault.LinkStall, fault.WorkerToUpstream)}, false},
		{"long after its way was free again", "always", 14, []Event{broke(9, 11.5, fault.LinkStall, fault.WorkerToUpstream)}, true},
		{"after Redis forgot the halt", "everysec", 12, []Event{broke(10.5, 11, fault.RedisKill, "redis")}, false},
		{"after Redis could not forget it any more", "everysec", 13.9, []Event{broke(12.5, 13, fault.RedisKill, "redis")}, true},
		{"after a kill of a Redis that forgets nothing", "always", 12, []Event{broke(10.5, 11, fault.RedisKill, "redis")}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			vs := Check(history(row.redis, append(row.others,
				halt, submitted(), called(row.call, row.call+0.5, itemA, "k1", 1, Success), read(20, 21, jobA, tasks.ItemSucceeded, 1, ""))...))
			if len(vs) > 1 || (len(vs) == 1) != row.broken || row.broken && !strings.HasPrefix(vs[0].String(), "Halt: phone-1 was reset ") {
				t.Errorf("violations %v", vs)
			}
		})
	}
}
