package redisdb_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// recovery is how long the service may be without Redis after the death of a
// primary.
const recovery = 10 * time.Second

// TestRedisThatReplacesADeadPrimary uses one DB from before the death of a
// primary until after it, as a process does.
func TestRedisThatReplacesADeadPrimary(t *testing.T) {
	for _, row := range []struct {
		name  string
		start func(*testing.T) (url string, kill func(*testing.T))
	}{
		{"Sentinel", func(t *testing.T) (string, func(*testing.T)) {
			s := redistest.StartSentinel(t)
			return s.URL(), func(t *testing.T) { s.KillPrimary(t) }
		}},
		{"Sentinel with TLS and passwords", func(t *testing.T) (string, func(*testing.T)) {
			s := secured(t).StartSentinel(t)
			return s.URL(), func(t *testing.T) { s.KillPrimary(t) }
		}},
		{"Cluster with TLS and a password", func(t *testing.T) (string, func(*testing.T)) {
			c := secured(t).StartCluster(t)
			return c.URL(), func(t *testing.T) { c.KillPrimary(t, "reset:open") }
		}},
		{"Cluster, the node of the queue", func(t *testing.T) (string, func(*testing.T)) {
			c := redistest.StartCluster(t)
			return c.URL(), func(t *testing.T) { c.KillPrimary(t, "asynq:{reset-0}:pending") }
		}},
		{"Cluster, the node of the open index", func(t *testing.T) (string, func(*testing.T)) {
			c := redistest.StartCluster(t)
			return c.URL(), func(t *testing.T) { c.KillPrimary(t, "reset:open") }
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			url, kill := row.start(t)
			db, err := redisdb.Open(t.Context(), redisdb.Options{URL: url, TaskRetention: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
			everythingWorks(t, db)

			handled := make(chan string, 1000)
			server := db.Redis.NewServer(asynq.Config{
				Queues: map[string]int{"reset-0": 1}, LogLevel: asynq.FatalLevel, TaskCheckInterval: 20 * time.Millisecond,
			})
			if err := server.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
				d, err := tasks.DecodeDelivery(task.Payload())
				handled <- d.ItemID
				return err
			})); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(server.Shutdown)
			processed(t, db, handled)

			kill(t)
			killed := time.Now()
			eventually(t, "a submit succeeds", func(ctx context.Context) error {
				_, err := submit(ctx, db)
				return err
			})
			submits := time.Since(killed)
			processed(t, db, handled)
			took := time.Since(killed)
			t.Logf("after the kill: a submit after %s, its task after %s", submits, took)
			if took > recovery {
				t.Errorf("no task was processed for %s", took)
			}
			everythingWorks(t, db) // on a server that has never seen our scripts
		})
	}
}

// secured asks for a certificate and for a password everywhere.
func secured(t *testing.T) redistest.Setup {
	t.Helper()
	return redistest.Setup{TLS: redistest.NewCerts(t), Password: "p#/1", SentinelUser: "client", SentinelPassword: "s&=1"}
}

// submit makes a job of a few instances, in as many slots, as the API does it.
func submit(ctx context.Context, db *redisdb.DB) (tasks.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return db.Records.Submit(ctx, tasks.Submission{
		Tenant: "acme", RequestID: "req-1", AllowUnregistered: true, InstanceIDs: []string{"phone-1", "phone-2", "phone-3"},
	})
}

// processed submits until the asynq server has handled an item of the last job.
func processed(t *testing.T, db *redisdb.DB, handled <-chan string) {
	t.Helper()
	eventually(t, "an asynq server processes what is submitted", func(ctx context.Context) error {
		job, err := submit(ctx, db)
		if err != nil {
			return err
		}
		patience := time.After(2 * time.Second)
		for {
			select {
			case item := <-handled:
				if strings.HasPrefix(item, job.ID) {
					return nil
				}
			case <-patience:
				return errors.New("no item of " + job.ID)
			}
		}
	})
}

// everythingWorks takes a job, its index entries, tasks and locks, a token and an
// instance of the fleet through what the service does with them. In a Cluster
// they are in different slots.
func everythingWorks(t *testing.T, db *redisdb.DB) {
	t.Helper()
	ctx := t.Context()
	if err := db.Check(ctx); err != nil {
		t.Fatal(err)
	}
	endpoint, err := db.Endpoints.Add(ctx, tasks.Endpoint{
		ID: "ep_" + tasks.NewJobID(), Tenant: "acme", URL: "https://acme.example", Topics: tasks.Topics, Secret: "whsec_1",
	}, tasks.Actor{})
	if err != nil {
		t.Fatal(err)
	}
	job, err := submit(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	inspector := asynq.NewInspectorFromRedisClient(client(t, db))
	for _, d := range job.Deliveries() {
		token := "token-" + d.InstanceID
		if _, err := inspector.GetTaskInfo(job.Queue, d.TaskID()); err != nil {
			t.Fatalf("task %s: %v", d.TaskID(), err)
		}
		if _, err := db.Attempts.Begin(ctx, d, token, "key", time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := db.Attempts.Checkpoint(ctx, d, token, "step-1"); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Attempts.Finish(ctx, d, token, tasks.Outcome{Transition: tasks.Succeed}, true); err != nil {
			t.Fatal(err)
		}
	}
	if job, err = db.Jobs.Job(ctx, job.ID); err != nil || job.State != tasks.JobSucceeded {
		t.Errorf("record %+v, %v", job, err)
	}
	if err := db.Notices.EnqueueNotices(ctx, job); err != nil {
		t.Fatal(err)
	}
	if _, err := inspector.GetTaskInfo(redisdb.WebhookQueue, job.Notice(job.UntoldEvents()[0], endpoint).TaskID()); err != nil {
		t.Errorf("the job's end is not told: %v", err)
	}
	if job, err = db.Jobs.Job(ctx, job.ID); err != nil || len(job.UntoldEvents()) != 0 {
		t.Errorf("it is not marked as told: %+v, %v", job, err)
	}
	if _, err := db.Endpoints.Report(ctx, endpoint, tasks.Report{EventID: "e", Status: 200}); err != nil {
		t.Error(err)
	}
	if err := errors.Join(db.Endpoints.RotateSecret(ctx, endpoint, "whsec_2", time.Hour, tasks.Actor{}), db.Endpoints.Remove(ctx, endpoint, tasks.Actor{})); err != nil {
		t.Error(err)
	}
	oneItemAtATime(t, db, client(t, db))
	if found, _, err := db.Jobs.Jobs(ctx, "acme", tasks.JobFilter{Limit: 100}); err != nil || !slices.ContainsFunc(found, func(j tasks.Job) bool { return j.ID == job.ID }) {
		t.Errorf("jobs %+v, %v; want %s, too", found, err, job.ID)
	}

	token, err := db.Tokens.Add(ctx, "secret", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, time.Hour, tasks.Actor{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := db.Tokens.Token(ctx, "secret"); err != nil || got.ID != token.ID {
		t.Errorf("token %+v, %v", got, err)
	}
	operatorsSee(t, db)
	theSweeperSees(t, db)
	if found, err := db.Tokens.Revoke(ctx, token.ID, tasks.Actor{}); err != nil || !found {
		t.Errorf("revoke: %t, %v", found, err)
	}
	fleet := []tasks.Instance{{ID: "phone-7", Tenant: "acme"}, {ID: "phone-8", Tenant: "acme", Protected: true}}
	if err := db.Fleet.Register(ctx, fleet, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if got, err := db.Fleet.Registered(ctx, []string{"phone-7", "phone-8"}); err != nil || !got["phone-8"].Protected || got["phone-8"].Tenant != "acme" || got["phone-7"].Protected {
		t.Errorf("fleet %+v, %v", got, err)
	}
	operatorsWork(t, db)
	runsWork(t, db)
}

// runsWork takes a run from its beginning to its end.
func runsWork(t *testing.T, db *redisdb.DB) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	run, err := db.Runs.Create(ctx, ofRun(100, ""))
	must(err)
	claims, err := db.RunProgress.Due(ctx, 10, "runner", time.Minute)
	mine := slices.IndexFunc(claims, func(c tasks.RunClaim) bool { return c.Run == run.ID }) // others are due once more after their end
	if err != nil || mine < 0 {
		t.Fatalf("due are %+v, %v", claims, err)
	}
	parts, err := db.Runs.Parts(ctx, run.ID, 0, 10)
	must(err)
	if taken, err := db.RunProgress.Take(ctx, run, parts[:1]); err != nil || !taken {
		t.Fatalf("taken %t, %v", taken, err)
	}
	if again, err := db.RunProgress.Take(ctx, run, parts[:1]); err != nil || again {
		t.Errorf("taken twice %t, %v", again, err)
	}
	counts := tasks.Counts{Succeeded: len(parts[0].InstanceIDs)}
	for range 2 {
		must(db.RunProgress.Close(ctx, run.ID, 0, tasks.Job{Counts: counts}))
	}
	must(db.RunDecisions.Pause(ctx, run.ID, tasks.Actor{}))
	must(db.RunDecisions.Resume(ctx, run.ID, nil, tasks.Actor{}))
	must(db.RunDecisions.Cancel(ctx, run.ID, tasks.Actor{}))
	run, err = db.Runs.Run(ctx, run.ID)
	if err != nil || run.Counts.Succeeded != counts.Succeeded || run.Counts.Cancelled != 100-counts.Succeeded {
		t.Fatalf("run %+v, %v", run, err)
	}
	if ended, err := db.RunProgress.Finish(ctx, run); err != nil || !ended {
		t.Fatalf("ended %t, %v", ended, err)
	}
	must(db.RunProgress.Put(ctx, claims[mine], time.Time{}))
	if found, _, err := db.Runs.List(ctx, "acme", tasks.RunFilter{Limit: 10}); err != nil || len(found) == 0 || found[0].ID != run.ID || found[0].State != tasks.RunPartial {
		t.Errorf("listed are %+v, %v", found, err)
	}
}

// operatorsWork makes the first operator with a link, and another one, and removes them.
func operatorsWork(t *testing.T, db *redisdb.DB) {
	t.Helper()
	secret, ctx := rand.Text(), t.Context()
	first, second := tasks.Operator{Name: "alice", Role: tasks.RoleOperator, PasswordHash: "x"}, tasks.Operator{Name: "bob", Role: tasks.RoleViewer, PasswordHash: "y"}
	invited, err := db.Operators.InviteFirst(ctx, secret, time.Hour)
	good, read := db.Operators.Invited(ctx, secret)
	made, making := db.Operators.AddFirstOperator(ctx, secret, first, tasks.Actor{})
	added, adding := db.Operators.Add(ctx, second, tasks.Actor{})
	again, repeated := db.Operators.Add(ctx, tasks.Operator{Name: "bob", PasswordHash: "z"}, tasks.Actor{})
	if err := errors.Join(err, read, making, adding, repeated); err != nil || !invited || !good || !made || !added || again {
		t.Errorf("invited %t, good %t, made %t, added %t, again %t: %v", invited, good, made, added, again, err)
	}
	sessionsWork(t, db, first)
	for _, name := range []string{"alice", "bob"} {
		if removed, err := db.Operators.Remove(ctx, name, tasks.Actor{}); !removed || err != nil {
			t.Errorf("%s removed %t, %v", name, removed, err)
		}
	}
}

// sessionsWork logs an operator in twice, with a second factor, and ends the sessions.
func sessionsWork(t *testing.T, db *redisdb.DB, o tasks.Operator) {
	t.Helper()
	ctx := t.Context()
	enrolled, err := db.Operators.Enrol(ctx, o.Name, "SECRET", []string{"recovery"}, tasks.Actor{})
	o, found, read := db.Operators.Operator(ctx, o.Name)
	step, using := db.Operators.UseStep(ctx, o.Name, 7)
	stepAgain, usingAgain := db.Operators.UseStep(ctx, o.Name, 7)
	code, recovering := db.Operators.UseRecovery(ctx, o.Name, "recovery")
	codeAgain, recoveringAgain := db.Operators.UseRecovery(ctx, o.Name, "recovery")
	if err := errors.Join(err, read, using, usingAgain, recovering, recoveringAgain); err != nil || !enrolled || !found || !step || stepAgain || !code || codeAgain {
		t.Errorf("enrolled %t, found %t, step %t, again %t, code %t, again %t: %v", enrolled, found, step, stepAgain, code, codeAgain, err)
	}
	one, two, half := rand.Text(), rand.Text(), rand.Text()
	err = errors.Join(db.Operators.AddSession(ctx, one, o, tasks.Visit{From: "192.0.2.1", Agent: "a"}), db.Operators.AddSession(ctx, two, o, tasks.Visit{}), db.Operators.AddHalf(ctx, half, o))
	who, known, halving := db.Operators.Half(ctx, half)
	_, isSession, asking := db.Operators.Session(ctx, half)
	all, listing := db.Operators.Sessions(ctx, o.Name)
	last, lasting := db.Operators.LastLogins(ctx)
	ended, ending := db.Operators.EndSessions(ctx, o.Name, "", one, tasks.Actor{})
	_, goesOn, looking := db.Operators.Session(ctx, one)
	_, goesOnToo, lookingToo := db.Operators.Session(ctx, two)
	if err := errors.Join(err, halving, asking, listing, lasting, ending, looking, lookingToo); err != nil || !known || who.Name != o.Name || isSession || len(all) != 2 ||
		last[o.Name].Role != o.Role || ended != 1 || !goesOn || goesOnToo {
		t.Errorf("half %t of %s, a session %t; sessions %+v, last %+v, ended %d, one goes on %t, two %t: %v", known, who.Name, isSession, all, last, ended, goesOn, goesOnToo, err)
	}
}

func client(t *testing.T, db *redisdb.DB) redis.UniversalClient {
	t.Helper()
	rdb, ok := db.Redis.MakeRedisClient().(redis.UniversalClient)
	if !ok {
		t.Fatal("not a client")
	}
	return rdb
}

// urlForChild tells this test binary to be a process that opens a Redis.
const urlForChild = "REDISDB_TEST_URL"

// TestOpenOverTLS needs processes of its own: Go reads the trusted authorities
// once per process.
func TestOpenOverTLS(t *testing.T) {
	if url := os.Getenv(urlForChild); url != "" {
		db, err := redisdb.Open(t.Context(), redisdb.Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		if _, err := submit(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		return
	}
	server, ca := redistest.StartTLS(t)
	_, stranger := redistest.StartTLS(t)
	for _, row := range []struct {
		name, url, ca string
		want          string // part of the error, when one is due
	}{
		{"works with an authority in SSL_CERT_FILE", server.URL(), ca, ""},
		{"refuses a certificate of another authority", server.URL(), stranger, "unknown authority"},
		{"refuses a certificate for another name", strings.Replace(server.URL(), "127.0.0.1", "localhost", 1), ca, "not valid for any names"},
		{"is the only way into that server", strings.Replace(server.URL(), "rediss:", "redis:", 1), ca, "cannot reach Redis"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOpenOverTLS$", "-test.timeout=30s")
			cmd.Env = append(os.Environ(), urlForChild+"="+row.url, "SSL_CERT_FILE="+row.ca, "SSL_CERT_DIR="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if (err == nil) != (row.want == "") || !strings.Contains(string(out), row.want) {
				t.Errorf("%v\n%s\nwant %q", err, out, row.want)
			}
		})
	}
}

func TestOpenWithCertificates(t *testing.T) {
	t.Parallel()
	certs := redistest.NewCerts(t)
	named, stranger := redistest.NewCerts(t, "redis.example"), redistest.NewCerts(t)
	server, other := redistest.Setup{TLS: certs}.Start(t), redistest.Setup{TLS: named}.Start(t)
	own := "cacert=" + certs.CA + "&cert=" + certs.Cert + "&key=" + certs.Key
	others := "cacert=" + named.CA + "&cert=" + named.Cert + "&key=" + named.Key
	for _, row := range []struct{ name, url, want string }{
		{"of their own", server.URL() + "?" + own, ""},
		{"and without one", server.URL() + "?cacert=" + certs.CA, "cannot reach Redis"},
		{"of a stranger", server.URL() + "?cacert=" + certs.CA + "&cert=" + stranger.Cert + "&key=" + stranger.Key, "cannot reach Redis"},
		{"that nobody vouches for", server.URL() + "?cert=" + certs.Cert + "&key=" + certs.Key, "unknown authority"},
		{"that somebody else vouches for", server.URL() + "?cacert=" + stranger.CA + "&cert=" + certs.Cert + "&key=" + certs.Key, "unknown authority"},
		{"of another name", other.URL() + "?" + others, "doesn't contain any IP SANs"},
		{"of a name that is known", other.URL() + "?sni=redis.example&" + others, ""},
		{"of a name that it has not", server.URL() + "?sni=redis.example&" + own, "redis.example"},
	} {
		t.Run(row.name, func(t *testing.T) {
			db, err := redisdb.Open(t.Context(), redisdb.Options{URL: row.url})
			if err == nil {
				_, err = submit(t.Context(), db)
				t.Cleanup(func() { _ = db.Close() })
			}
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

// TestSentinelsThatAskWhoIsThere have another password than Redis.
func TestSentinelsThatAskWhoIsThere(t *testing.T) {
	t.Parallel()
	s := redistest.Setup{Password: "p", SentinelUser: "client", SentinelPassword: "sp"}.StartSentinel(t)
	for _, row := range []struct {
		name string
		url  func(string) string
		want string
	}{
		{"of nobody", func(u string) string {
			return strings.Replace(u, "&sentinel_password=sp&sentinel_username=client", "", 1)
		}, "NOAUTH"},
		{"of somebody else", func(u string) string { return strings.Replace(u, "sentinel_password=sp", "sentinel_password=p", 1) }, "the Sentinels answer: WRONGPASS"},
		{"of whom Redis does not know", func(u string) string { return strings.Replace(u, ":p@", ":x@", 1) }, "redis answers: WRONGPASS"},
		{"of whom both know", func(u string) string { return u }, ""},
		{"of whom both know, about another database", func(u string) string { return strings.Replace(u, "?", "/5?", 1) }, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			url := row.url(s.URL())
			db, err := redisdb.Open(t.Context(), redisdb.Options{URL: url})
			if err == nil {
				_, err = submit(t.Context(), db)
				t.Cleanup(func() { _ = db.Close() })
			}
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: got %v, want %q", url, err, row.want)
			}
		})
	}
	for _, database := range []int{0, 5} {
		if n, err := s.Primary(t).ClientOf(t, database).DBSize(t.Context()).Result(); err != nil || n == 0 {
			t.Errorf("database %d has %d keys, %v", database, n, err)
		}
	}
}

func TestAClusterSharesTheWork(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: c.URL(), Queues: 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	const jobs = 300
	for n := range jobs {
		if _, err := db.Records.Submit(t.Context(), tasks.Submission{
			Tenant: fmt.Sprint("tenant-", n%50), InstanceIDs: []string{"phone-1", "phone-2", "phone-3", "phone-4"}, AllowUnregistered: true,
		}); err != nil {
			t.Fatal(err)
		}
	}
	if n := gather(t, db)["redis_round_trip_duration_seconds{}"]; n < 4*jobs {
		t.Errorf("%v round trips are counted, each job takes some", n)
	}
	for _, node := range c.Servers[:3] {
		rdb := node.Client()
		t.Cleanup(func() { _ = rdb.Close() })
		records, queued := len(rdb.Keys(t.Context(), "reset:{*}").Val()), len(rdb.Keys(t.Context(), "asynq:{reset-*}:t:*").Val())
		t.Logf("%d of %d records, %d of %d tasks", records, jobs, queued, 4*jobs)
		// A third each, give or take.
		if records < jobs/5 || queued < 4*jobs/6 {
			t.Error("a node has too little to do")
		}
	}
	taken := serve(t, db)
	for range 4 * jobs {
		select {
		case <-taken:
		case <-time.After(30 * time.Second):
			t.Fatal("not every task is taken")
		}
	}
}

// theSweeperSees looks at a job as the sweeper does, one of whose tasks is lost, and delivers
// that one again.
func theSweeperSees(t *testing.T, db *redisdb.DB) {
	t.Helper()
	ctx := t.Context()
	job, err := submit(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	deliveries := job.Deliveries()
	ids := make([]string, len(deliveries))
	for i, d := range deliveries {
		ids[i] = d.TaskID()
	}
	if err := db.Redis.NewInspector().DeleteTask(job.Queue, ids[1]); err != nil {
		t.Fatal(err)
	}
	if looks := db.Sweep.LookUp(ctx, job.Queue, ids); !slices.Equal(looks, []tasks.TaskLook{{}, {Fate: tasks.Missing}, {}}) {
		t.Errorf("its tasks are %+v", looks)
	}
	for i, hold := range db.Sweep.Holds(ctx, deliveries) {
		if hold != (tasks.Hold{Open: true}) {
			t.Errorf("item %d is with %+v", i, hold)
		}
	}
	if _, err := db.Sweep.Active(ctx, job.Queue); err != nil {
		t.Error(err)
	}
	if _, err := db.Sweep.InHand(ctx); err != nil {
		t.Error(err)
	}
	if _, _, err := db.Sweep.Claim(ctx, 10, time.Minute); err != nil {
		t.Error(err)
	}
	if err := db.Sweep.Redeliver(ctx, job, deliveries[1], func(int) time.Duration { return 0 }); err != nil {
		t.Fatal(err)
	}
	reads := db.Jobs.Records(ctx, []string{job.ID, tasks.NewJobID()})
	if reads[0].Err != nil || reads[0].Job.Items[1].Delivery != 2 || !errors.Is(reads[1].Err, tasks.JobGone) {
		t.Errorf("records %+v", reads)
	}
}
