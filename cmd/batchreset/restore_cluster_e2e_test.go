package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/api/client"
	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/redistest"
)

// restoredCluster is a service whose Cluster, or a node of it, is put back to an older state while it runs.
type restoredCluster struct {
	*restored
	nodes *redistest.Cluster
	rdb   *redis.ClusterClient
}

func newRestoredCluster(t *testing.T, held ...string) *restoredCluster {
	t.Helper()
	c := redistest.StartCluster(t)
	rdb, _ := c.Client().(*redis.ClusterClient)
	t.Cleanup(func() { _ = rdb.Close() })
	return &restoredCluster{newRestored(t, c.URL(), rdb, held...), c, rdb}
}

// at is the primary that has a key.
func (s *restoredCluster) at(key string) *harness.Server {
	s.Helper()
	node, err := s.rdb.MasterForKey(s.Context(), key)
	if err != nil {
		s.Fatal(err)
	}
	server, err := s.nodes.ServerAt(node.Options().Addr)
	if err != nil {
		s.Fatal(err)
	}
	return server
}

// named is a name of which all keys are where they are to be.
func (s *restoredCluster) named(name string, want map[*harness.Server]func(name string) string) string {
	s.Helper()
	for n := range 10_000 {
		tried := fmt.Sprint(name, "-", n)
		there := true
		for server, key := range want {
			there = there && s.at(key(tried)) == server
		}
		if there {
			return tried
		}
	}
	s.Fatal("no name like " + name)
	return ""
}

func recordKey(key string) string {
	return codec.JobKey(tasks.Submission{Tenant: "acme", IdempotencyKey: key}.JobID())
}

func runID(key string) string {
	return tasks.RunSubmission{Tenant: "acme", IdempotencyKey: key}.RunID()
}

func runKey(key string) string { return codec.RunKey(runID(key)) }

func partKey(key string) string { return codec.JobKey(tasks.PartJobID(runID(key), 0)) }

// submitOn makes a job of one instance whose record is on a node.
func (s *restoredCluster) submitOn(record *harness.Server, name, instance string, notBefore time.Time) {
	s.Helper()
	key := s.named(name, map[*harness.Server]func(string) string{record: recordKey})
	s.submit(key, client.Batch{InstanceIDs: []string{instance}, NotBefore: notBefore})
	s.jobs[name] = s.jobs[key]
	delete(s.jobs, key)
	if s.at(codec.JobKey(s.jobs[name])) != record {
		s.Fatal("its record is elsewhere")
	}
}

// submitRun makes a run of two instances.
func (s *restoredCluster) submitRun(key string, instances []string, approval bool) client.Run {
	s.Helper()
	run, err := s.client.Runs().Submit(s.Context(), client.RunRequest{InstanceIDs: instances, Approval: approval, IdempotencyKey: key})
	if err != nil {
		s.Fatal(err)
	}
	return run
}

func (s *restoredCluster) runSucceeds(id string) {
	s.Helper()
	harness.Eventually(s, patience, "the run to succeed", func() bool {
		now, err := s.client.Runs().Get(s.Context(), id)
		return err == nil && now.State == "succeeded" && now.Counts.Succeeded == 2 && now.Total == 2
	})
}

func (s *restoredCluster) backup(node *harness.Server) (file string) {
	s.Helper()
	host, port, _ := net.SplitHostPort(node.Addr)
	return s.script("backup", s.TempDir(), "-h", host, "-p", port)
}

// beats are the numbers of signs of life.
func (s *restoredCluster) beats() map[string]int {
	s.Helper()
	all := map[string]int{}
	for _, node := range s.nodes.Servers[:3] {
		rdb := node.Client()
		for _, key := range rdb.Keys(s.Context(), "reset:worker:*:beats").Val() {
			all[key], _ = rdb.Get(s.Context(), key).Int()
		}
		_ = rdb.Close()
	}
	return all
}

// live waits until every number of signs of life has grown by so many.
func (s *restoredCluster) live(more int) {
	s.Helper()
	before := s.beats()
	harness.Eventually(s, patience, "signs of life", func() bool {
		now := s.beats()
		for key, n := range before {
			if now[key] < n+more {
				return false
			}
		}
		return true
	})
}

// restore puts a snapshot back into the folder of a primary, and empties its replica's, which must run as little. nodes.conf
// stays in both.
func (s *restoredCluster) restore(primary *harness.Server, snapshot string, flags ...string) {
	s.Helper()
	s.Log(s.script(append([]string{"restore", snapshot, primary.Dir}, flags...)...))
	for _, name := range []string{"appendonlydir", "dump.rdb"} {
		if err := os.RemoveAll(filepath.Join(s.replica(primary).Dir, name)); err != nil {
			s.Fatal(err)
		}
	}
}

func (s *restoredCluster) replica(primary *harness.Server) *harness.Server {
	return s.nodes.Servers[slices.Index(s.nodes.Servers, primary)+3]
}

// start starts servers again, primaries first, and waits until the Cluster answers.
func (s *restoredCluster) start(servers ...*harness.Server) {
	s.Helper()
	for _, server := range servers {
		if err := server.Restart(context.WithoutCancel(s.Context())); err != nil {
			s.Fatal(err)
		}
	}
	for _, server := range servers {
		rdb := server.Client()
		harness.Eventually(s, patience, "the Cluster", func() bool {
			return strings.Contains(rdb.ClusterInfo(s.Context()).Val(), "cluster_state:ok")
		})
		_ = rdb.Close()
	}
}

// TestRestoreOfAClusterUnderRunningWorkers puts back snapshots of the primaries that were taken seconds apart, while work
// went on: record and lock, run and job, queue and index are of different moments then. deploy/redis/README.md has the table.
func TestRestoreOfAClusterUnderRunningWorkers(t *testing.T) {
	t.Parallel()
	held := []string{"between-1", "gone-1", "lost-1", "open-1", "open-2"}
	s := newRestoredCluster(t, held...)
	bobs := s.approver("bob")
	// In the order of the snapshots.
	first, second, third := s.at("reset:open"), s.at("reset:policies"), s.at("reset:runs")
	if s.at("asynq:{reset-0}") != second || first == second || second == third || first == third {
		t.Fatal("the keys are on other nodes than this test goes by")
	}

	s.submit("before", client.Batch{InstanceIDs: []string{"before-1"}})
	s.succeeds("before")
	s.told("before")
	s.submitOn(third, "ended between", "between-1", time.Time{})
	s.called("between-1")
	waiting := s.submitRun(s.named("waiting", map[*harness.Server]func(string) string{first: runKey, second: partKey}), []string{"waiting-1", "waiting-2"}, true)

	snapshots := map[*harness.Server]string{first: s.backup(first)}
	s.submitOn(first, "record gone", "gone-1", time.Time{})
	s.submitOn(second, "lock lost", "lost-1", time.Time{})
	s.called("lost-1")
	s.submitOn(second, "twin", "lost-1", time.Time{})
	open := s.submitRun(s.named("open", map[*harness.Server]func(string) string{third: runKey, first: partKey}), []string{"open-1", "open-2"}, false)
	if _, err := bobs.Runs().Approve(t.Context(), waiting.ID, waiting.ListSHA256, "looked at it"); err != nil {
		t.Fatal(err)
	}
	s.runSucceeds(waiting.ID)
	for _, instance := range held {
		s.called(instance)
	}

	ahead := s.named("ahead", map[*harness.Server]func(string) string{third: codec.LockKey})
	s.plane.hold(ahead)
	s.submitOn(second, "lock ahead", ahead, time.Now().Add(3*time.Second))

	snapshots[second] = s.backup(second)
	if calls := s.plane.of(ahead); len(calls) > 0 {
		t.Fatal("the machine is too slow")
	}
	s.called(ahead)
	s.submitOn(third, "unlisted", "unlisted-1", time.Now().Add(3*time.Second))
	s.plane.letGo("between-1")
	s.succeeds("ended between")

	snapshots[third] = s.backup(third)
	if calls := s.plane.of("unlisted-1"); len(calls) > 0 {
		t.Fatal("the machine is too slow")
	}
	s.succeeds("unlisted")
	s.live(1)

	s.nodes.Kill()
	for node, snapshot := range snapshots {
		if node == second { // which has reset:policies
			s.restore(node, snapshot)
		} else {
			s.restore(node, snapshot, "--no-halt")
		}
	}
	s.start(s.nodes.Servers...)
	back := time.Now()
	s.rdb.Publish(t.Context(), "reset:runs", open.ID) // else a runner comes to it within a minute
	harness.Eventually(t, patience, "the halt", func() bool { return s.halted() != "" })

	underWay := []string{ahead, "gone-1", "lost-1", "open-1", "open-2"}
	// Before anything goes on, workers lock what they have under way.
	for _, instance := range underWay {
		harness.Eventually(t, patience, "the lock of "+instance, func() bool { return s.rdb.Exists(t.Context(), codec.LockKey(instance)).Val() > 0 })
	}
	for name, state := range map[string]string{"before": "succeeded", "ended between": "succeeded", "lock ahead": "pending", "lock lost": "running", "twin": "pending", "unlisted": "pending"} {
		if job, err := s.job(name); err != nil || job.Items[0].State != state {
			t.Errorf("after the restore %s is %+v, %v; want %s", name, job.Items, err, state)
		}
	}
	if _, err := s.job("record gone"); !isStatus(err, http.StatusNotFound) {
		t.Errorf("a job whose record is gone: %v", err)
	}
	if now, err := s.client.Runs().Get(t.Context(), waiting.ID); err != nil || now.State != "waiting" {
		t.Errorf("the run whose record is older than its job is %+v, %v", now, err)
	}
	if again := s.plane.since(back); len(again) > 0 {
		t.Errorf("%v were reset before anybody had looked", again)
	}

	// An operator who does not wait until everything that was under way has ended.
	command(t, s.environment, "resume", "--all").OK(t)
	if _, err := bobs.Runs().Approve(t.Context(), waiting.ID, waiting.ListSHA256, "looked at it again"); err != nil {
		t.Fatal(err)
	}
	s.runSucceeds(waiting.ID)
	s.succeeds("unlisted")
	for _, instance := range underWay {
		if calls := s.plane.of(instance); len(calls) != 1 {
			t.Errorf("while it was being reset %s was reset again: %+v", instance, calls)
		}
	}
	for instance := range maps.Clone(s.plane.held) {
		s.plane.letGo(instance)
	}
	s.runSucceeds(open.ID)
	for _, name := range []string{"lock ahead", "lock lost", "twin", "unlisted"} {
		s.succeeds(name)
		s.told(name)
	}
	for instance, calls := range map[string]int{
		"before-1": 1, "between-1": 1, "waiting-1": 1, "waiting-2": 1, "gone-1": 1,
		ahead: 2, "open-1": 2, "open-2": 2, "unlisted-1": 2, // as what was waiting at the snapshot of the record
		"lost-1": 2, // one for each job
	} {
		if got := s.plane.of(instance); len(got) != calls || calls == 2 && got[0].key == got[1].key {
			t.Errorf("%s has the calls %+v, want %d, under keys of their own", instance, got, calls)
		}
	}
	s.consistent()
	for name := range s.jobs {
		if job, err := s.job(name); name != "record gone" && (err != nil || job.Counts != client.Counts{Succeeded: 1}) {
			t.Errorf("%s has the counts %+v, %v", name, job.Counts, err)
		}
	}
	for _, w := range s.workers {
		w.stop()
	}
}

// consistent asserts what holds whatever was restored.
func (s *restored) consistent() {
	s.Helper()
	if twice := s.plane.sideBySide(); len(twice) > 0 {
		s.Errorf("two resets at a time of %v", twice)
	}
	events := map[string]int{}
	hooks, _ := s.hooks.got()
	for _, h := range hooks {
		if strings.Contains(h.Body, s.jobs["before"]) {
			events[h.id()]++
		}
	}
	if len(events) != 1 {
		s.Errorf("what had ended before the snapshot was told under the IDs %v", events)
	}
}

// TestRestoreOfOneNodeUnderRunningWorkers puts one primary back that has neither the halts nor the signs that workers live,
// and nobody halts anything: the workers do.
func TestRestoreOfOneNodeUnderRunningWorkers(t *testing.T) {
	t.Parallel()
	s := newRestoredCluster(t)
	node := s.nodes.Servers[0]
	for _, candidate := range s.nodes.Servers[:3] {
		rdb := candidate.Client()
		if len(rdb.Keys(t.Context(), "reset:worker:{????????}").Val()) == 0 {
			node = candidate
		}
		_ = rdb.Close()
	}
	instance := "one-1"
	s.submitOn(node, "one", instance, time.Now().Add(4*time.Second))
	snapshot := s.backup(node)
	s.succeeds("one")
	s.live(5)

	s.replica(node).Kill()
	node.Kill()
	s.restore(node, snapshot, "--no-halt")
	for _, w := range s.workers {
		w.logged("sign of life not written")
	}
	s.start(node, s.replica(node))
	harness.Eventually(t, patience, "the halt", func() bool { return s.halted() != "" })
	if !strings.Contains(s.halted(), "Redis has gone back in time by ") {
		t.Errorf("everything is halted because of %s", s.halted())
	}
	if job, err := s.job("one"); err != nil || job.State != "pending" {
		t.Errorf("the job is %+v, %v", job, err)
	}
	if calls := s.plane.of(instance); len(calls) != 1 {
		t.Errorf("before anybody had looked: %+v", calls)
	}
	for _, w := range s.workers {
		w.stop()
	}
}
