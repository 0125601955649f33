package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/pflag"

	"batchreset/api"
	"batchreset/api/auth"
	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/proof"
	"batchreset/tasks/redisdb"
)

// apiFlags are the settings of the API.
type apiFlags struct {
	listen         string
	fleet          string
	maxInstances   int
	maxRun         int
	approvalExpiry time.Duration
	maxWaiters     int
	basePath       string
	origins        []string
	drainDelay     time.Duration // of api alone
	proofKeyFile   string
	proofs         *proof.Signer // of proofKeyFile, once checked; nil: none
	callers        callersFlags
	seals          redisflags.Seals
	db             redisdb.Options
}

func (f *apiFlags) define(flags *pflag.FlagSet, listen, fleet string) {
	flags.StringVar(&f.listen, "listen", listen, "`address` of the public API")
	flags.StringVar(&f.fleet, "fleet", fleet, "which instances may be reset: 'registered' = those in the fleet, by their tenant; 'open' = also any that is not registered")
	flags.IntVar(&f.maxInstances, "max-instances", tasks.DefaultMaxInstances, "how many instances one request may list, at most 100")
	flags.DurationVar(&f.approvalExpiry, "approval-expiry", tasks.DefaultApprovalExpiry, "how long a run waits for approval before it expires")
	flags.IntVar(&f.maxRun, "max-run-instances", tasks.DefaultMaxRunInstances, "how many instances one run may list, at most 1000000; its request may have 8 MiB")
	flags.StringVar(&f.basePath, "base-path", "", "the `path` below which callers find the API behind a proxy, such as /reset: addresses in answers begin with it; the proxy may leave it on requests or remove it")
	flags.StringSliceVar(&f.origins, "cors-origins", nil, "`origins` such as https://app.example whose pages may read the API's answers in a browser; none: only the API's own may")
	flags.StringVar(&f.proofKeyFile, "proof-key-file", "", "sign proofs of what became of a job or a run with the Ed25519 key in this `file`, which 'batchreset proof new-key' makes; older keys may follow the one that signs; none: there are no proofs")
	f.callers.define(flags)
	f.seals.Define(flags)
	flags.IntVar(&f.maxWaiters, "max-waiters", 20_000, "how many long polls and streams may wait at the same time, at 30 to 55 kB each; one tenant may have as many as are left free, so half of them if no other tenant waits; further ones are told to poll")
	flags.DurationVar(&f.db.JobRetention, "job-retention", 7*24*time.Hour, "how long a job record is kept after its job has finished")
	flags.DurationVar(&f.db.GiveUpAfter, "give-up-after", 24*time.Hour, "an item that has not ended after this time never starts again")
	flags.DurationVar(&f.db.AuditRetention, "audit-retention", 30*24*time.Hour, "how long entries of the audit trail are kept")
	flags.IntVar(&f.db.MaxBacklog, "max-backlog", defaultBacklog, "how many instances may wait to be reset, about, before submits are refused with 429; 0 = any number")
	flags.DurationVar(&f.db.TaskRetention, "task-retention", 15*time.Minute, "how long finished tasks stay on the asynq dashboard; 0 = not at all")
}

func (f *apiFlags) check(listener tlsFlags) error {
	switch {
	case f.fleet != "registered" && f.fleet != "open":
		return fmt.Errorf("--fleet must be 'registered' or 'open', not %q", f.fleet)
	case f.maxInstances < 1 || f.maxInstances > tasks.MaxMaxInstances:
		return fmt.Errorf("--max-instances must be from 1 to %d, not %d", tasks.MaxMaxInstances, f.maxInstances)
	case f.maxRun < 1 || f.maxRun > tasks.MaxMaxRunInstances:
		return fmt.Errorf("--max-run-instances must be from 1 to %d, not %d", tasks.MaxMaxRunInstances, f.maxRun)
	case f.maxWaiters < 0:
		return errors.New("--max-waiters must not be negative")
	case f.approvalExpiry < time.Second:
		return fmt.Errorf("--approval-expiry must be at least 1s, not %s", f.approvalExpiry)
	case f.drainDelay < 0:
		return errors.New("--drain-delay must not be negative")
	case f.db.JobRetention < time.Minute:
		return fmt.Errorf("--job-retention must be at least 1m, not %s", f.db.JobRetention)
	case f.db.GiveUpAfter < time.Second:
		return fmt.Errorf("--give-up-after must be at least 1s, not %s", f.db.GiveUpAfter)
	case f.db.AuditRetention < time.Hour:
		return fmt.Errorf("--audit-retention must be at least 1h, not %s", f.db.AuditRetention)
	case f.db.MaxBacklog < 0:
		return errors.New("--max-backlog must not be negative")
	case f.db.TaskRetention < 0:
		return errors.New("--task-retention must not be negative")
	}
	for _, origin := range f.origins {
		if err := api.CheckOrigin(origin); err != nil {
			return fmt.Errorf("--cors-origins: %w", err)
		}
	}
	seals, err := f.seals.Read()
	f.db.Seals = seals
	return errors.Join(err, checkAddress("listen", f.listen), f.readProofKey(), f.callers.check(listener.ClientCA != ""), checkPath("base-path", f.basePath))
}

func (f *apiFlags) readProofKey() error {
	if f.proofKeyFile == "" {
		return nil
	}
	text, err := os.ReadFile(f.proofKeyFile)
	if err != nil {
		return fmt.Errorf("--proof-key-file: %w", err)
	}
	if f.proofs, err = proof.ReadSigner(text); err != nil {
		return fmt.Errorf("--proof-key-file: %s: %w", f.proofKeyFile, err)
	}
	return nil
}

func (f *apiFlags) handler(stopping <-chan struct{}, p *process) *api.API {
	db, log := p.db, p.log
	iam, jwt := f.callers.configure(db.Redis, log)
	var certificates *auth.Certificates
	if p.ops.tls.ClientCA != "" {
		certificates = auth.NewCertificates(f.callers.rules.Certificates, p.certificates)
	}
	return api.New(api.Config{
		IAM: iam, JWT: jwt, Certificates: certificates, Sealed: f.db.Seals != nil, Secrets: p.secretsText,
		Runs: runStore{db.Runs, db.RunDecisions}, ApprovalExpiry: f.approvalExpiry,
		MaxInstances: f.maxInstances, MaxRunInstances: f.maxRun, AllowUnregistered: f.fleet == "open", MaxWaiters: f.maxWaiters, TrustedProxies: p.ops.trusted(),
		Tracer: p.tracer, Version: terminal.Version(), BasePath: f.basePath, Origins: f.origins, Stopping: stopping, Proofs: f.proofs,
	}, apiStore(db), log)
}

// defaultBacklog is five times what one tenant may have open by default. Queued, each is
// about 1 kB of Redis.
const defaultBacklog = 500_000

// sayLimits tells the log what tenants are limited to that have no limits of their own.
func (f *apiFlags) sayLimits(ctx context.Context, db *redisdb.DB, log *slog.Logger) error {
	all, err := db.Policies.Policy(ctx, "")
	if err != nil {
		return err
	}
	log.Info("limits of a tenant without its own ('batchreset tenant limit' changes them; 0 = none)",
		"requests_per_second", *all.RequestsPerSecond, "open_instances", *all.OpenInstances,
		"instances_per_hour", *all.InstancesPerHour, "max_failures", *all.MaxFailures, "max_backlog", f.db.MaxBacklog)
	return nil
}
