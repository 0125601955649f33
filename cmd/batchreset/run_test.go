package main

import (
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestBadSettingsAreRefusedByName(t *testing.T) {
	t.Parallel()
	const nowhere = "redis://127.0.0.1:1"
	for _, row := range []struct {
		name, args, want string
	}{
		{"an unknown command", "frobnicate", `unknown command "frobnicate"`},
		{"an unknown flag", "api --frobnicate", "unknown flag: --frobnicate"},
		{"an argument where none belongs", "api now", `unexpected argument "now"`},
		{"a worker without a driver", "worker", "--driver is missing"},
		{"a driver that does not exist", "worker --driver magic", `--driver must be 'http' or 'simulator', not "magic"`},
		{"a driver that needs a file", "worker --driver http --drivers x.yaml", "--driver and --drivers do not go together"},
		{"a drivers file that is missing", "worker --drivers /nowhere.yaml", "--drivers /nowhere.yaml: "},
		{"a drivers file with a name twice", "worker --drivers " + terminaltest.File(t, "drivers:\n  - {name: b, type: simulator}\n  - {name: b, type: simulator}\n"), "line 3: name \"b\" is there twice"},
		{"a setting beside a drivers file", "worker --driver-url http://x/{instance_id} --drivers " + terminaltest.File(t, "drivers:\n  - {name: default, type: simulator}\n"), "--driver-url does not go together with --drivers"},
		{"an http driver without a URL", "worker --driver http", "--driver-url is missing"},
		{"an http driver with a URL without a place for the instance", "worker --driver http --driver-url https://x.example/reset", "--driver-url"},
		{"an http driver with a URL that is not one", "worker --driver http --driver-url phones/{instance_id}", "--driver-url"},
		{"a token file that is missing", "worker --driver http --driver-url https://x.example/{instance_id} --driver-token-file /nowhere", "--driver-token-file"},
		{"a token file that is empty", "worker --driver http --driver-url https://x.example/{instance_id} --driver-token-file " + terminaltest.File(t, "\n"), "is empty"},
		{"a definite answer that is a refusal anyway", "worker --driver http --driver-url https://x.example/{instance_id} --driver-definite 500,404", "--driver-definite must list statuses from 500 to 599, not 404"},
		{"a setting of another driver", "worker --driver simulator --driver-definite 500", "--driver-definite is a setting of --driver http"},
		{"a simulation of a control plane", "worker --driver http --driver-url https://x.example/{instance_id} --simulator-latency 1s", "--simulator-latency is a setting of --driver simulator"},
		{"a definite answer that is no number", "worker --driver http --driver-url https://x.example/{instance_id} --driver-definite 5xx", "--driver-definite"},
		{"a word without its state", "worker --driver http --driver-url https://x.example/{instance_id} --driver-words wiped", "--driver-words must be like done=wiped,failed=broken"},
		{"a word for a state that does not exist", "worker --driver http --driver-url https://x.example/{instance_id} --driver-words over=wiped", `--driver-words "over" is none of done, running and failed`},
		{"a word for two states", "worker --driver http --driver-url https://x.example/{instance_id} --driver-words done=wiped,running=Wiped", `--driver-words "wiped" cannot be a word for running, because it is one for done`},
		{"a known word for another state", "worker --driver http --driver-url https://x.example/{instance_id} --driver-words done=running", `"running" cannot be a word for done`},
		{"a failure rate above 1", "worker --driver simulator --simulator-failure-rate 2", "failure-rate"},
		{"no concurrency", "worker --driver simulator --concurrency 0", "--concurrency must be at least 1"},
		{"more lanes than concurrency", "worker --driver simulator --concurrency 2 --lanes 3", "--lanes"},
		{"no attempts", "worker --driver simulator --max-attempts 0", "--max-attempts"},
		{"a number that is none", "worker --driver simulator --concurrency many", "--concurrency"},
		{"a duration without a unit", "worker --driver simulator --attempt-timeout 5", "--attempt-timeout"},
		{"a fleet policy that does not exist", "api --fleet closed", "--fleet must be 'registered' or 'open'"},
		{"too many instances", "api --max-instances 101", "--max-instances must be from 1 to 100"},
		{"runs of nothing", "api --max-run-instances 0", "--max-run-instances must be from 1 to 1000000"},
		{"a negative drain delay", "api --drain-delay -1s", "--drain-delay must not be negative"},
		{"a negative patience", "worker --driver simulator --redis-patience -1s", "--redis-patience must not be negative"},
		{"fewer waiters than none", "api --max-waiters -1", "--max-waiters must not be negative"},
		{"no retention", "api --job-retention 1s", "--job-retention"},
		{"a negative rate", "worker --driver simulator --driver-rate -1", "--driver-rate"},
		{"a negative bound of calls", "worker --driver simulator --driver-concurrency -1", "--driver-concurrency"},
		{"a negative number of replicas", "worker --driver simulator --commit-replicas -1", "--commit-replicas must not be negative"},
		{"a URL of another kind", "api --redis http://localhost", `--redis: has the scheme "http"`},
		{"a collector that is none", "api --otlp-endpoint localhost:4318", "--otlp-endpoint must be a URL such as http://localhost:4318"},
		{"a collector by another protocol", "worker --driver simulator --otlp-endpoint grpc://localhost:4317", "--otlp-endpoint must be a URL"},
		{"a place of traces without the trace", "dev --trace-url https://jaeger.example/trace", "--trace-url must be a URL with {trace_id} in it"},
		{"a place of traces that is a script", "dev --trace-url javascript:{trace_id}", "--trace-url must be a URL"},
		{"a URL file that is missing", "api --redis-file /nowhere", "--redis-file"},
		{"a Redis that is down, for the api", "api --redis " + nowhere, "--redis: cannot reach Redis"},
		{"a Redis that is down, for a worker", "worker --driver simulator --redis " + nowhere, "--redis: cannot reach Redis"},
		{"a Redis that is down, for dev", "dev --redis " + nowhere, "--redis: cannot reach Redis"},
		{"a token without a tenant", "token add", "--tenant is missing"},
		{"a token for a tenant with a bad name", "token add --tenant a/b", "--tenant"},
		{"a token with a scope that does not exist", "token add --tenant a --scope root", "--scope must be of"},
		{"a token with a negative life", "token add --tenant a --ttl -1s", "--ttl must not be negative"},
		{"a token to revoke without an ID", "token revoke", "ID is missing (see 'batchreset token revoke --help')"},
		{"a halt of nobody", "halt", "--tenant is missing, or --all"},
		{"a halt of one and all", "halt --tenant acme --all", "--all and --tenant do not go together"},
		{"a halt of a tenant with a bad name", "halt --tenant a/b", "--tenant"},
		{"a halt with a reason that is too long", "halt --all --reason " + strings.Repeat("x", 257), "--reason is 257 characters long"},
		{"a halt with an argument", "halt acme", `unexpected argument "acme"`},
		{"an end of a halt of nobody", "resume", "--tenant is missing, or --all"},
		{"no limit", "tenant limit --all", "no limit is given"},
		{"a limit of nobody", "tenant limit --instances-per-hour 1", "--tenant is missing"},
		{"a negative limit", "tenant limit --all --open-instances -1", "--open-instances must be from 0"},
		{"a limit that is no number", "tenant limit --all --max-failures few", "--max-failures"},
		{"a list of a tenant with a bad name", "tenant list a/b", "is not a tenant"},
		{"a trail from a time that is none", "audit --since yesterday", "--since must be a time such as"},
		{"a trail of a negative time", "audit --since -1h", "--since must be a time such as"},
		{"a trail that ends before it begins", "audit --since 1h --until 2h", "--since is after --until"},
		{"a trail of an action that does not exist", "audit --action wipe", "--action must be one of submit"},
		{"a trail of a job that cannot be", "audit --job 7", "--job"},
		{"a trail of an instance that cannot be", "audit --instance a/b", "--instance"},
		{"a trail of a tenant that cannot be", "audit --tenant a/b", "--tenant"},
		{"a trail that is dropped at once", "api --audit-retention 1m", "--audit-retention must be at least 1h"},
		{"a proxy that is no network", "api --trusted-proxies everyone", "--trusted-proxies"},
		{"an operator without a name", "operator add", "NAME is missing"},
		{"an operator without a role", "operator role alice", "ROLE is missing"},
		{"an operator with two names", "operator add alice bob", `unexpected argument "bob"`},
		{"a protection of nothing", "fleet protect", "ID is missing"},
		{"an import of nothing", "fleet import", "FILE.csv|FILE.json|FILE.jsonl is missing"},
		{"an operator with a bad name", "operator add a/b", "is not a name"},
		{"an operator with a role that does not exist", "operator add alice --role king", "--role must be of viewer,approver,operator,admin"},
		{"a negative backlog", "api --max-backlog -1", "--max-backlog must not be negative"},
		{"an output form that does not exist", "token list --output xml", "must be one of text, json"},
		{"a fleet file of another kind", "fleet import fleet.txt", "must end in .csv, .json or .jsonl"},
		{"a fleet file that is missing", "fleet import nowhere.csv", "nowhere.csv: no such file"},
		{"a health check of nothing", "healthcheck --url http://127.0.0.1:1/", "connection refused"},
	} {
		t.Run(row.name, func(t *testing.T) {
			command(t, nil, strings.Fields(row.args)...).WantError(t, row.want)
		})
	}
}

func TestAPasswordIsNotRepeatedInAnError(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"redis://:hunter2@127.0.0.1:1", "redis://:hunter2@[::1", "http://:hunter2@host"} {
		if r := command(t, nil, "api", "--redis", url); r.Err == nil || strings.Contains(r.Err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, r.Err)
		}
	}
}

func TestSettingsFromTheEnvironment(t *testing.T) {
	environment := map[string]string{"BATCHRESET_FLEET": "closed", "BATCHRESET_REDIS": "http://localhost"}
	command(t, environment, "api").WantError(t, `--fleet must be 'registered' or 'open', not "closed"`)
	// The command line wins.
	command(t, environment, "api", "--fleet", "open").WantError(t, "--redis: has the scheme")
	command(t, map[string]string{"BATCHRESET_LANES": "x"}, "worker").WantError(t, "BATCHRESET_LANES")
}

func TestEveryCommandTeaches(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"dev"},
		{"api"},
		{"worker"},
		{"submit"},
		{"status"},
		{"watch"},
		{"jobs"},
		{"cancel"},
		{"retry"},
		{"run"},
		{"run", "submit"},
		{"token", "add"},
		{"token", "list"},
		{"token", "revoke"},
		{"fleet", "import"},
		{"fleet", "list"},
		{"fleet", "remove"},
		{"fleet", "protect"},
		{"fleet", "unprotect"},
		{"healthcheck"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			help := command(t, nil, append(args, "--help")...).OK(t).Out
			if !strings.Contains(help, "Examples:\n") {
				t.Errorf("no example:\n%s", help)
			}
		})
	}
}

func TestNothingOnACommandLineIsSkipped(t *testing.T) {
	for _, row := range []struct{ args, want string }{
		{"submit --reason a --reason b phone-1", `invalid argument "b" for "--reason" flag: it is given twice`},
		{"submit --dry-run --dry-run=false phone-1", `"--dry-run" flag: it is given twice`},
		{"submit --token a --token a phone-1", `"--token" flag: it is given twice`},
		{"submit --not-before 1h --not-before=2h phone-1", `"--not-before" flag: it is given twice`},
		{"submit --file a -f b", `"-f, --file" flag: it is given twice`},
		{"retry --server http://a --server http://b " + job1, `"--server" flag: it is given twice`},
		{"cancel --all --all=false", `"--all" flag: it is given twice`},
		{"halt --tenant acme --tenant globex", `"--tenant" flag: it is given twice`},
		{"resume --all --all", `"--all" flag: it is given twice`},
		{"fleet import --redis a --redis b fleet.csv", `"--redis" flag: it is given twice`},
		{"fleet protect --redis a --redis b phone-1", `"--redis" flag: it is given twice`},
		{"worker --driver-url http://a --driver-url http://b", `"--driver-url" flag: it is given twice`},
		{"halt --Tenant acme", "unknown flag: --Tenant"},
		{"submit --dry_run phone-1", "unknown flag: --dry_run"},
		{"fleet protct phone-1", `unknown command "protct" for "batchreset fleet"; did you mean "protect"?`},
		{"tenant lmit", `unknown command "lmit" for "batchreset tenant"; did you mean "limit"?`},
		{"token delete x", `unknown command "delete" for "batchreset token"`},
	} {
		command(t, nil, strings.Fields(row.args)...).WantError(t, row.want)
	}
	for _, group := range []string{"fleet", "tenant", "token", "webhook", "operator"} {
		if out := command(t, nil, group).OK(t).Out; !strings.Contains(out, "Available Commands") {
			t.Errorf("%s says %s", group, out)
		}
	}
}

func TestVariablesThatWereMeantForAFlag(t *testing.T) {
	for name, want := range map[string]string{
		"BATCHRESET_DRIVER_URLS": "BATCHRESET_DRIVER_URL", "BATCHRESET_DRYRUN": "BATCHRESET_DRY_RUN", "BATCHRESET_TOKENS": "BATCHRESET_TOKEN",
	} {
		command(t, map[string]string{name: "x"}, "jobs", "--token", "t").WantError(t, "unknown environment variable "+name+`; did you mean "`+want+`"?`)
	}
	// Kubernetes has these for services of such names, and people for their own.
	others := map[string]string{
		"BATCHRESET_SERVICE_HOST": "10.0.0.1", "BATCHRESET_SERVICE_PORT": "80", "BATCHRESET_PORT": "tcp://10.0.0.1:80", "BATCHRESET_PORT_80_TCP_ADDR": "10.0.0.1",
		"BATCHRESET_API_SERVICE_HOST": "10.0.0.1", "BATCHRESET_API_PORT": "x", "BATCHRESET_REDIS_SERVICE_PORT": "1", "BATCHRESET_REDIS_PORT_6379_TCP": "x",
		"BATCHRESET_BIN": "x", "BATCHRESET_BINARY": "x", "BATCHRESET_HOME": "x", "BATCHRESET_VERSION": "x", "BATCHRESET_IMAGE": "x",
	}
	command(t, others, "token", "list", "--redis", "http://no").WantError(t, "has the scheme")
}
