package registry

import (
	"context"
	"errors"
	"testing"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// A request is not refused because its limit cannot be read: what was known last holds.
func TestLimitsOfRequestsThatCannotBeRead(t *testing.T) {
	limit := 7
	found := []*policyLook{
		{all: tasks.Policy{Limits: tasks.Limits{RequestsPerSecond: &limit}}, tenants: map[string]tasks.Policy{}},
	}
	p := &Policies{look: wire.NewLook(0, policyPatience, func(context.Context, **policyLook) (*policyLook, error) {
		if len(found) == 0 {
			return nil, errors.New("context deadline exceeded")
		}
		defer func() { found = found[1:] }()
		return found[0], nil
	})}
	t.Cleanup(p.Close)
	for _, when := range []string{"read", "known"} {
		if got := *p.known(t.Context(), "acme").RequestsPerSecond; got != limit {
			t.Errorf("%s: %d", when, got)
		}
	}
	if _, err := p.Policy(t.Context(), "acme"); err == nil {
		t.Error("what may be a halt is taken from what was known")
	}
	found = []*policyLook{{tenants: map[string]tasks.Policy{}, broken: map[string]error{"acme": &codec.Damage{Err: errors.New("?")}}}}
	if got := *p.known(t.Context(), "acme").RequestsPerSecond; got != *tasks.DefaultLimits().RequestsPerSecond {
		t.Errorf("a policy that is no more than damage: %d", got)
	}
	p.look.Forget()
	if got := *p.known(t.Context(), "acme").RequestsPerSecond; got != *tasks.DefaultLimits().RequestsPerSecond {
		t.Errorf("never known: %d", got)
	}
}
