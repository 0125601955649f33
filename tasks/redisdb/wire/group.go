package wire

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/redis/go-redis/v9"
)

const (
	// groupsUnderWay is how many groups are on their way to Redis at a time: while it
	// works on one, the answers of another are worked on here.
	groupsUnderWay = 4
	// groupSize is how many calls a group has at most. Redis answers a group as a whole,
	// which takes it some 10 µs for each call.
	groupSize = 32
)

// grouped is a client whose scripts share round trips, for many goroutines: what is
// called while groups are on their way goes with the next group, as soon as one of
// them has come back. Nothing waits for company, so that a single caller loses nothing.
//
// go-redis has such a client, too. Its AutoPipeline waits for as many callers as it has
// just answered to come again; but most of a worker's calls are the last of their
// task, and a drain with it takes half as long again.
type grouped struct {
	redis.UniversalClient
	slots chan struct{}

	mu   sync.Mutex
	next *group
}

func newGrouped(rdb redis.UniversalClient) *grouped {
	return &grouped{UniversalClient: rdb, slots: make(chan struct{}, groupsUnderWay)}
}

// group is what is sent at once.
type group struct {
	size  int
	cmds  []redis.Cmder
	items map[Many][]*item
	order []Many        // of items: chance has no part in what is sent
	done  chan struct{} // closed when every answer is there
	err   error         // nothing was sent
}

// item is what many.lua runs a script on.
type item struct {
	keys   []string
	args   []any
	answer any
	err    error
}

// EvalSha implements redis.Scripter.
func (c *grouped) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := evalSha(ctx, sha, keys, args)
	if err := c.join(ctx, func(g *group) { g.cmds = append(g.cmds, cmd) }); err != nil {
		return failed(ctx, err) // cmd may still get its answer
	}
	return cmd
}

// do sends a command, whose value must not be read after an error.
func (c *grouped) do(ctx context.Context, cmd redis.Cmder) error {
	if err := c.join(ctx, func(g *group) { g.cmds = append(g.cmds, cmd) }); err != nil {
		return err
	}
	return cmd.Err()
}

// run runs a script on one item, in one script with others. All keys must
// be on one node.
func (c *grouped) run(ctx context.Context, script Many, keys []string, args []any) (any, error) {
	it := &item{keys: keys, args: args}
	add := func(g *group) {
		if g.items[script] == nil {
			g.order = append(g.order, script)
		}
		g.items[script] = append(g.items[script], it)
	}
	if err := c.join(ctx, add); err != nil {
		return nil, err
	}
	return it.answer, it.err
}

// join adds something to the next group and waits until it is done. The caller that
// opened the group sends it. After an error, which is that of ctx, what was added may
// be done or not.
func (c *grouped) join(ctx context.Context, add func(*group)) error {
	c.mu.Lock()
	g := c.next
	first := g == nil
	if first {
		g = &group{items: map[Many][]*item{}, done: make(chan struct{})}
		c.next = g
	}
	add(g)
	g.size++
	if g.size == groupSize {
		c.next = nil
	}
	c.mu.Unlock()
	if first {
		c.lead(ctx, g)
	}
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lead sends a group when its turn comes. The group is not this caller's alone: if the
// caller goes away it is sent all the same. Only its time is everyone's, because the
// others came at the same moment.
func (c *grouped) lead(ctx context.Context, g *group) {
	deadline, bounded := ctx.Deadline()
	ctx = context.WithoutCancel(ctx)
	if bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	// Whatever happens here, nobody may wait for ever.
	g.err = errNotSent
	defer close(g.done)
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
		c.close(g)
		c.send(ctx, g)
		g.err = nil
	case <-ctx.Done():
		c.close(g)
		g.err = ctx.Err()
	}
}

var errNotSent = errors.New("the call came to nothing")

// close lets nothing more into a group.
func (c *grouped) close(g *group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == g {
		c.next = nil
	}
}

// send sends a group and brings every answer to its place.
func (c *grouped) send(ctx context.Context, g *group) {
	pipe := c.Pipeline()
	_ = pipe.BatchProcess(ctx, g.cmds...) // only queues
	var runs []*manyRun
	for _, many := range g.order {
		r := newManyRun(many.script, g.items[many])
		r.cmd = evalSha(ctx, many.Hash(), r.keys, r.args)
		_ = pipe.Process(ctx, r.cmd)
		runs = append(runs, r)
	}
	_, _ = pipe.Exec(ctx) // each command carries its own error
	for _, r := range runs {
		if redis.HasErrorPrefix(r.cmd.Err(), "NOSCRIPT") {
			r.cmd = r.script.Eval(ctx, c.UniversalClient, r.keys, r.args...)
		}
		r.answer()
	}
}

// manyRun is one call of many.lua.
type manyRun struct {
	script *redis.Script
	items  []*item
	keys   []string
	args   []any
	cmd    *redis.Cmd
}

func newManyRun(script *redis.Script, items []*item) *manyRun {
	r := &manyRun{script: script, items: items}
	first := items[0]
	r.keys = make([]string, 0, len(items)*len(first.keys))
	r.args = make([]any, 0, 2+len(items)*len(first.args))
	r.args = append(r.args, len(first.keys), len(first.args))
	for _, it := range items {
		r.keys = append(r.keys, it.keys...)
		r.args = append(r.args, it.args...)
	}
	return r
}

// answer gives each item its answer.
func (r *manyRun) answer() {
	answers, err := r.cmd.Slice()
	if err == nil && len(answers) != len(r.items) {
		err = fmt.Errorf("%d answers for %d items", len(answers), len(r.items))
	}
	for i, it := range r.items {
		if err != nil {
			it.err = err
		} else if failure, ok := answers[i].(error); ok {
			it.err = failure
		} else {
			it.answer = answers[i]
		}
	}
}

// evalSha makes the command that redis.Scripter's method of this name sends.
func evalSha(ctx context.Context, sha string, keys []string, args []any) *redis.Cmd {
	all := make([]any, 0, 3+len(keys)+len(args))
	all = append(all, "evalsha", sha, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	cmd := redis.NewCmd(ctx, append(all, args...)...)
	cmd.SetFirstKeyPos(3) // where a Cluster finds the slot
	return cmd
}

// Run runs a script as redis.Script's Run does, in a round trip that others may share.
func (c *Client) Run(ctx context.Context, script *redis.Script, keys []string, args ...any) *redis.Cmd {
	return script.Run(ctx, c.group, keys, args...)
}

// Grouped sends a command in a round trip that others may share. After an error the command's
// value must not be read.
func (c *Client) Grouped(ctx context.Context, cmd redis.Cmder) error { return c.group.do(ctx, cmd) }

// Each runs a script on one item and returns its answer, in one call with others if that can
// be. All keys must be on one node. It commits as Commit does.
func (c *Client) Each(ctx context.Context, script Many, keys []string, args ...any) (answer any, err error) {
	if !c.Stepwise() {
		return c.group.run(ctx, script, keys, args)
	}
	answers, err := c.Commit(ctx, script.script, keys, append([]any{len(keys), len(args)}, args...)...).Slice()
	if len(answers) == 1 {
		answer = answers[0]
	}
	return answer, err
}
