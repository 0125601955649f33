//go:build !race

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"google.golang.org/protobuf/encoding/protowire"

	"batchreset/cmd/harness/faketime"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// simQueue does what asynq's servers do, on asynq's keys: real clients put tasks there,
// and real inspectors look at them. It hands tasks out in any order, early, twice, or
// while they are being worked on, as asynq's servers do on machines with wrong clocks.
type simQueue struct {
	w    *simWorld
	rand *rand.Rand

	mu      sync.Mutex
	servers []*simServer
}

// simServer is one process's asynq server.
type simServer struct {
	q    *simQueue
	link *simLink
	skew time.Duration // of its machine's clock
	cfg  asynq.Config

	handler asynq.Handler
	busy    int
}

const leaseFor = 30 * time.Second // asynq's

func (q *simQueue) newServer(l *simLink, skew time.Duration) func(asynq.Config) *simServer {
	return func(cfg asynq.Config) *simServer { return &simServer{q: q, link: l, skew: skew, cfg: cfg} }
}

// Start implements worker.Server.
func (s *simServer) Start(h asynq.Handler) error {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	s.handler = h
	s.q.servers = append(s.q.servers, s)
	return nil
}

// Shutdown implements worker.Server.
func (s *simServer) Shutdown() {
	s.q.mu.Lock()
	s.q.servers = slices.DeleteFunc(s.q.servers, func(o *simServer) bool { return o == s })
	s.q.mu.Unlock()
	for s.working() && !s.link.isDead() {
		faketime.Pass(time.Second)
	}
}

func (s *simServer) free() {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	s.busy--
}

func (s *simServer) working() bool {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	return s.busy > 0
}

// asynq's keys.
func asynqKey(queue, what string) string { return "asynq:{" + queue + "}:" + what }
func taskKey(queue, id string) string    { return asynqKey(queue, "t:"+id) }

const resetQueue = "reset-0"

// run hands out tasks until the world ends.
func (q *simQueue) run() {
	for q.w.goesOn() {
		q.w.setClock()
		q.forward("scheduled")
		q.forward("retry")
		q.recover()
		q.handOut()
		q.tell()
		faketime.Pass(20*time.Millisecond + rand1(q.rand, time.Duration(q.w.tick.Load())))
	}
}

// forward makes tasks ready whose time has come, by the clock of somebody's machine.
func (q *simQueue) forward(from string) {
	due, _ := q.w.redis.SortedSet(asynqKey(resetQueue, from))
	for _, id := range sortedKeys(due) {
		early := time.Duration(0)
		if q.w.on("early") && q.rand.IntN(20) == 0 {
			early = rand1(q.rand, 100*time.Second)
		}
		if due[id] <= float64(time.Now().Add(early).Unix()) {
			_, _ = q.w.redis.ZRem(asynqKey(resetQueue, from), id)
			q.put(id)
		}
	}
}

func (q *simQueue) put(id string) {
	if q.w.redis.HGet(taskKey(resetQueue, id), "msg") == "" {
		return // somebody removed it
	}
	q.w.redis.HSet(taskKey(resetQueue, id), "state", "pending")
	_, _ = q.w.redis.Push(asynqKey(resetQueue, "pending"), id)
}

// recover gives tasks to others whose lease is over, by the clock of somebody's machine.
func (q *simQueue) recover() {
	leases, _ := q.w.redis.SortedSet(asynqKey(resetQueue, "lease"))
	for _, id := range sortedKeys(leases) {
		left := time.Until(time.Unix(int64(leases[id]), 0))
		wrong := q.w.on("recover") && q.rand.IntN(200) == 0 // 100 s ahead
		if left < -leaseFor || wrong {
			q.deactivate(id)
			q.put(id)
		}
	}
}

func (q *simQueue) deactivate(id string) {
	_, _ = q.w.redis.ZRem(asynqKey(resetQueue, "lease"), id)
	key := asynqKey(resetQueue, "active")
	active, _ := q.w.redis.List(key)
	q.w.redis.Del(key)
	if active = slices.DeleteFunc(active, func(other string) bool { return other == id }); len(active) > 0 {
		_, _ = q.w.redis.Push(key, active...)
	}
}

// handOut gives ready tasks to servers that have room.
func (q *simQueue) handOut() {
	key := asynqKey(resetQueue, "pending")
	ready, _ := q.w.redis.List(key)
	if len(ready) == 0 {
		return
	}
	q.rand.Shuffle(len(ready), func(i, j int) { ready[i], ready[j] = ready[j], ready[i] })
	q.w.redis.Del(key)
	for len(ready) > 0 {
		s := q.idle()
		if s == nil {
			_, _ = q.w.redis.Push(key, ready...)
			return
		}
		id := ready[0]
		ready = ready[1:]
		task, payload := q.task(resetQueue, id)
		if task == nil { // somebody removed it
			s.free()
			continue
		}
		q.w.redis.HSet(taskKey(resetQueue, id), "state", "active")
		_, _ = q.w.redis.Push(asynqKey(resetQueue, "active"), id)
		s.lease(id)
		if q.w.on("lost") && q.rand.IntN(30) == 0 { // the server forgot it
			s.free()
			continue
		}
		// They do not begin at the very same time.
		q.w.later(time.Duration(len(ready)*1000), func() { s.work(id, task) })
		if q.w.on("twin") && q.rand.IntN(30) == 0 {
			again := asynq.NewTask(task.Type(), payload)
			q.w.later(rand1(q.rand, 90*time.Second), func() {
				if other := q.idle(); other != nil {
					other.work(id, again)
				}
			})
		}
	}
}

// idle is a server that can take a task, or nil. It is busy with it then.
func (q *simQueue) idle() *simServer {
	q.mu.Lock()
	defer q.mu.Unlock()
	var idle []*simServer
	for _, s := range q.servers {
		if !s.link.isDead() && s.link.frozen() <= 0 && s.busy < s.cfg.Concurrency {
			idle = append(idle, s)
		}
	}
	if len(idle) == 0 {
		return nil
	}
	s := idle[q.rand.IntN(len(idle))]
	s.busy++
	return s
}

// atWork reports whether the server of a process has something to do.
func (q *simQueue) atWork(l *simLink) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.servers, func(s *simServer) bool { return s.link == l && s.busy > 0 })
}

// task reads a task as asynq wrote it.
func (q *simQueue) task(queue, id string) (*asynq.Task, []byte) {
	raw := []byte(q.w.redis.HGet(taskKey(queue, id), "msg"))
	var kind string
	var payload []byte
	for len(raw) > 0 {
		field, wire, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return nil, nil
		}
		raw = raw[n:]
		if wire != protowire.BytesType {
			raw = raw[max(0, protowire.ConsumeFieldValue(field, wire, raw)):]
			continue
		}
		value, n := protowire.ConsumeBytes(raw)
		if n < 0 {
			return nil, nil
		}
		switch field {
		case 1:
			kind = string(value)
		case 2:
			payload = value
		}
		raw = raw[n:]
	}
	if kind == "" {
		return nil, nil
	}
	return asynq.NewTask(kind, payload), payload
}

func (s *simServer) lease(id string) {
	until := time.Now().Add(s.skew + leaseFor).Unix()
	_, _ = s.q.w.redis.ZAdd(asynqKey(resetQueue, "lease"), float64(until), id)
}

// work has the handler process a task, and does with it what the handler says.
func (s *simServer) work(id string, task *asynq.Task) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	s.q.w.all.Go(func() { ended <- s.handler.ProcessTask(ctx, task) })
	beat := time.NewTicker(5*time.Second + time.Duration(len(id)))
	defer beat.Stop()
	lease := time.Now()
	for {
		select {
		case err := <-ended:
			s.free()
			if !s.link.isDead() && s.link.frozen() <= 0 {
				s.done(id, task, err)
			}
			return
		case <-beat.C:
			if s.link.isDead() {
				continue
			}
			if s.link.frozen() <= 0 {
				lease = time.Now()
				if _, err := s.q.w.redis.ZScore(asynqKey(resetQueue, "lease"), id); err == nil {
					s.lease(id)
				}
			}
			if time.Since(lease) > leaseFor {
				cancel() // asynq gives it up
			}
		}
	}
}

func (s *simServer) done(id string, task *asynq.Task, err error) {
	redis := s.q.w.redis
	if state := redis.HGet(taskKey(resetQueue, id), "state"); state != "active" {
		return // it is somebody else's by now
	}
	s.q.deactivate(id)
	s.q.w.setClock()
	switch {
	case err == nil:
		redis.Del(taskKey(resetQueue, id))
	case errors.Is(err, asynq.SkipRetry):
		redis.HSet(taskKey(resetQueue, id), "state", "archived")
		_, _ = redis.ZAdd(asynqKey(resetQueue, "archived"), float64(time.Now().Unix()), id)
	default:
		redis.HSet(taskKey(resetQueue, id), "state", "retry")
		at := time.Now().Add(s.cfg.RetryDelayFunc(0, err, task) + s.skew/10)
		_, _ = redis.ZAdd(asynqKey(resetQueue, "retry"), float64(at.Unix()), id)
	}
}

// tell takes the notices of jobs that have ended.
func (q *simQueue) tell() {
	key := asynqKey(redisdb.WebhookQueue, "pending")
	ready, _ := q.w.redis.List(key)
	for _, id := range ready {
		_, payload := q.task(redisdb.WebhookQueue, id)
		notice, err := tasks.DecodeNotice(payload)
		if err != nil {
			panic(fmt.Sprintf("notice %s: %v", id, err))
		}
		q.w.redis.Del(taskKey(redisdb.WebhookQueue, id))
		if notice.Topic == tasks.TopicJobFinished {
			q.w.rec.Add(toldBy(notice, q.w.rec.Now()))
		}
	}
	q.w.redis.Del(key)
}

// Losses that people and machines can bring about.

func (q *simQueue) random(r *rand.Rand) (id string) {
	var ids []string
	for _, key := range q.w.redis.Keys() {
		if id, ok := strings.CutPrefix(key, asynqKey(resetQueue, "t:")); ok {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return ""
	}
	return ids[r.IntN(len(ids))]
}

// remove is what the dashboard can do to a task.
func (q *simQueue) remove(id string) {
	for _, set := range []string{"scheduled", "retry", "archived", "lease"} {
		_, _ = q.w.redis.ZRem(asynqKey(resetQueue, set), id)
	}
	q.deactivate(id)
	key := asynqKey(resetQueue, "pending")
	ready, _ := q.w.redis.List(key)
	q.w.redis.Del(key)
	if ready = slices.DeleteFunc(ready, func(other string) bool { return other == id }); len(ready) > 0 {
		_, _ = q.w.redis.Push(key, ready...)
	}
	q.w.redis.Del(taskKey(resetQueue, id))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
