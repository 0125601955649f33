package serve

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/attribute"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/worker/webhook"
)

const (
	demoTenant = "demo"
	demoToken  = "demo-token"
)

func newDevCommand(std *terminal.Streams) *cobra.Command {
	var (
		redis redisflags.Flags
		api   apiFlags
		work  workerFlags
		ops   opsFlags
		hook  string
		dir   string

		drivers []driverEntry
	)
	work.driver = "simulator"
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, to try it out",
		Long: `Runs API, worker, simulated phones and the operators' listener in one process,
on a Redis inside it. Nothing needs to be installed, and nothing survives a
restart, unless --state names a directory: that gets what the Redis has, every
5 seconds and at the end, and the next start goes on with it. This is no
durability: a dev that is killed forgets its last seconds, and may do a reset of
then again. Ctrl-C lets the resets that are under way end first; a second one ends
it at once, like a kill. With --redis it uses a real Redis instead. 'fleet',
'token' and other operators' commands work on the Redis inside with the --redis
that it prints.`,
		Example: `  batchreset dev
  batchreset dev --state ~/.batchreset-dev
  batchreset dev --listen 127.0.0.1:9000 --simulator-latency 5s --simulator-failure-rate 0.2`,
		Args: terminal.NoArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) (err error) {
			if work.Lanes == 0 && !redis.Given() {
				work.Lanes = min(embeddedLanes, work.Concurrency)
			}
			if err := errors.Join(api.check(ops.tls), work.check(), ops.check(), redis.Check()); err != nil {
				return err
			}
			if hook != "" {
				if err := webhook.CheckURL(cmd.Context(), hook, work.webhookPrivate); err != nil {
					return fmt.Errorf("--webhook-url %w", err)
				}
			}
			drivers, err = work.newDrivers(newLogger(std.Err))
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return terminal.WithCode(terminal.ExitOther, runDev(cmd.Context(), std, redis, api, work, drivers, ops, hook, dir))
		},
	}
	terminal.TakeConfig(cmd)
	redis.Define(cmd.Flags(), "")
	api.define(cmd.Flags(), "127.0.0.1:8080", "open")
	ops.tls.defineClients(cmd.Flags())
	work.define(cmd.Flags())
	redisflags.DefineWebhookPrivate(cmd.Flags(), &work.webhookPrivate, true)
	cmd.Flags().StringVar(&hook, "webhook-url", "", "embedded Redis: tell this `URL` of what happens to jobs and runs")
	terminal.Alternatives(cmd.Flags(), "webhook-url", "redis") // a real one has 'batchreset webhook add'
	terminal.Alternatives(cmd.Flags(), "webhook-url", "redis-file")
	cmd.Flags().StringVar(&dir, "state", "", "embedded Redis: keep what it has in this `directory` for the next start, every 5 seconds and at the end; no durability: a dev that is killed forgets its last seconds; none: nothing is kept")
	terminal.Alternatives(cmd.Flags(), "state", "redis") // a real one keeps what it has
	terminal.Alternatives(cmd.Flags(), "state", "redis-file")
	ops.define(cmd.Flags(), "127.0.0.1:9090")
	ops.openHere = true
	return cmd
}

func runDev(ctx context.Context, std *terminal.Streams, redis redisflags.Flags, api apiFlags, work workerFlags, drivers []driverEntry, ops opsFlags, hook, dir string) error {
	ops.webhookPrivate = work.webhookPrivate
	d := &dev{process: newProcess("dev", std, ops), redis: redis, token: demoToken, hook: hook, dir: dir}
	api.db.Roles = []redisdb.Role{redisdb.RoleAPI, redisdb.RoleWorker}
	api.db.Embedded = !redis.Given()
	return d.run(ctx,
		d.openCertificates,
		d.startRedis,
		d.openRedis(&d.redis, api.db),
		d.lookAtSecrets(&api.seals),
		d.addCaller,
		d.startTracing(attribute.String("batchreset.driver", work.driver)),
		d.addWorker(work, drivers),
		d.addAPI(api),
		d.addSite,
		d.greet,
	)
}

// dev is a process that is api and worker, with a Redis inside it unless another one is given,
// and with a caller that can begin at once.
type dev struct {
	*process

	redis  redisflags.Flags
	inside bool   // is the Redis
	token  string // of the caller
	hook   string // URL that is told of every job; may be empty
	secret string // that signs what it is told
	dir    string // keeps what the Redis inside has; may be empty
	state  *state // nil without dir
}

// startRedis starts the Redis inside, unless one is given.
func (d *dev) startRedis(context.Context) error {
	if d.inside = !d.redis.Given(); !d.inside {
		return nil
	}
	server, err := startEmbedded()
	if err != nil {
		return fmt.Errorf("start embedded Redis: %w", err)
	}
	d.onClose("embedded Redis", func() error { server.Close(); return nil })
	d.redis.URL = server.url
	if d.dir == "" {
		return nil
	}
	if d.state, err = openState(d.dir, server, d.log); err != nil {
		return err
	}
	d.onClose("state", d.state.close) // when nothing changes the Redis any more
	if err := d.state.load(); err != nil {
		return err
	}
	d.companions = append(d.companions, part{"state", d.state.keep})
	return nil
}

// addCaller makes a token, and an endpoint for --webhook-url, unless they were kept.
func (d *dev) addCaller(ctx context.Context) error {
	if d.state != nil && d.state.loaded {
		return d.findCaller(ctx)
	}
	// The token of the embedded Redis is fixed, so that command lines can be kept.
	// A well-known token has no business in a real one.
	ttl := time.Duration(0)
	if !d.inside {
		d.token, ttl = rand.Text(), 24*time.Hour
	}
	if _, err := d.db.Tokens.Add(ctx, d.token, tasks.Token{Tenant: demoTenant, Scopes: tasks.Scopes}, ttl, terminal.Actor("dev")); err != nil {
		return err
	}
	return d.addEndpoint(ctx)
}

func (d *dev) addEndpoint(ctx context.Context) error {
	if d.hook == "" {
		return nil
	}
	endpoint, err := d.db.Endpoints.Add(ctx, tasks.NewEndpoint(demoTenant, d.hook, tasks.Topics), terminal.Actor(""))
	d.secret = endpoint.Secret
	return terminal.WithoutCode(err)
}

// findCaller looks for the token and the endpoint of a dev before. A token that was revoked stays so.
func (d *dev) findCaller(ctx context.Context) error {
	_, err := d.db.Tokens.Token(ctx, d.token)
	switch code := tasks.CodeOf(err); {
	case err != nil && (code == tasks.BadToken || code == tasks.TokenExpired):
		d.log.Warn("the token " + demoToken + " was revoked or has expired; 'batchreset token add --tenant " + demoTenant + "' makes another one")
	case err != nil:
		return err
	}
	endpoints, err := d.db.Endpoints.Of(ctx, demoTenant)
	if err != nil {
		return err
	}
	for _, e := range endpoints {
		if e.URL == d.hook {
			d.secret = e.Secret
			return nil
		}
	}
	return d.addEndpoint(ctx)
}

// embeddedLanes is how many lanes ask the embedded Redis: it does one thing at a time, and
// with 32 of them the first request of a busy machine came too late.
const embeddedLanes = 4

// embedded is a Redis inside this process, for this user alone: whoever has the URL. Operators'
// commands work on it, too.
type embedded struct {
	*miniredis.Miniredis
	url      string
	password string
	expiry   *expiry
}

func startEmbedded() (embedded, error) {
	server := miniredis.NewMiniRedis()
	password := rand.Text()
	server.RequireAuth(password)
	if err := server.Start(); err != nil {
		return embedded{}, err
	}
	server.Server().SetPreHook(answerInfo)
	e := embedded{server, "redis://:" + password + "@" + server.Addr(), password, &expiry{redis: server, until: time.Now(), stopped: make(chan struct{})}}
	go e.expiry.run()
	return e, nil
}

func (e embedded) Close() {
	close(e.expiry.stopped)
	e.Miniredis.Close()
}

// expiry has the keys of an embedded Redis expire. Left to itself it looks at all of its keys with every command
// (ClockTTL), which takes a millisecond once there are a few thousand.
type expiry struct {
	redis   *miniredis.Miniredis
	stopped chan struct{}

	mu    sync.Mutex // who has it, has no key expire meanwhile
	until time.Time  // how far time has passed for keys
}

// run lets time pass for keys. They may live expiryEvery too long or too short.
func (x *expiry) run() {
	for pause := expiryEvery; ; {
		select {
		case <-x.stopped:
			return
		case <-time.After(pause):
		}
		began := time.Now()
		x.mu.Lock()
		x.pass()
		x.mu.Unlock()
		pause = max(expiryEvery, 20*time.Since(began))
	}
}

const expiryEvery = 20 * time.Millisecond

// pass lets time pass until now. The caller has the lock.
func (x *expiry) pass() {
	now := time.Now()
	if passed := now.Sub(x.until); passed > 0 {
		x.redis.FastForward(passed)
	}
	x.until = now
}

// answerInfo has an embedded Redis tell what a command asks before it trusts a server with
// jobs: it understands what is needed, and evicts nothing.
func answerInfo(c *server.Peer, command string, _ ...string) bool {
	if command != "INFO" {
		return false
	}
	c.WriteBulk("redis_version:6.2.0\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n")
	return true
}

// greet says what there is, and what to do with it.
func (d *dev) greet(context.Context) error {
	keeps := "the Redis that you named"
	switch {
	case d.state != nil:
		keeps = "this process; every 5 seconds " + d.state.dir + "\ngets what there is, for the next start. This is no durability: a dev that is killed forgets its last seconds"
	case d.inside:
		keeps = "this process; nothing survives a restart"
	}
	fmt.Fprintf(d.std.Out, `batchreset dev: simulated phones, jobs are kept in %[4]s

  API             %[1]s      tenant %[5]s, token %[3]s
  Operators' site %[2]s      with asynq's dashboard under /asynq

Reset two phones:

  curl -s %[1]s/v1/instances/batch-reset -H 'X-Auth-Token: %[3]s' -d '{"instance_ids":["a44uhlf7","efjy72gs"]}'

Follow the job, with the task_id of the answer:

  curl -s %[1]s/v1/jobs/TASK_ID -H 'X-Auth-Token: %[3]s'

Or both at once:

  go run ./cmd/batchreset submit --server %[1]s --token %[3]s --wait a44uhlf7 efjy72gs

`, d.api, d.site, d.token, keeps, demoTenant)
	if d.inside {
		fmt.Fprintf(d.std.Out, "Operators' commands need the Redis inside, such as:\n\n  go run ./cmd/batchreset fleet list --redis %s\n\n", d.redis.URL)
	}
	if d.hook != "" {
		fmt.Fprintf(d.std.Out, "Every job that ends is told to %s, signed with %s\n\n", d.hook, d.secret)
	}
	return nil
}
