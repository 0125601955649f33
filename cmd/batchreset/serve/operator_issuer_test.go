package serve

import (
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestSettingsOfTheIssuerOfOperators(t *testing.T) {
	const well = "--ops-url https://reset.example --ops-oidc-issuer https://id.example/realms/a --ops-oidc-client-id x --ops-oidc-roles sre=operator "
	for _, row := range []struct{ name, args, want string }{
		{"a client without an issuer", "--ops-oidc-client-id x", "go with --ops-oidc-issuer"},
		{"roles without an issuer", "--ops-oidc-roles sre=admin", "go with --ops-oidc-issuer"},
		{"an issuer that is read on the way", strings.Replace(well, "https://id", "http://id", 1), "--ops-oidc-issuer must be a URL that begins with https://"},
		{"an issuer that is no URL", strings.Replace(well, "https://id.example/realms/a", "id.example", 1), "--ops-oidc-issuer must be a URL"},
		{"no client", strings.Replace(well, "--ops-oidc-client-id x", "", 1), "needs --ops-oidc-client-id"},
		{"no roles", strings.Replace(well, "--ops-oidc-roles sre=operator", "", 1), "needs --ops-oidc-roles"},
		{"a role that is none", well + "--ops-oidc-roles it=boss", `it: "boss" is no role`},
		{"a group twice", well + "--ops-oidc-roles sre=admin", `has the group "sre" twice`},
		{"nowhere to come back to", strings.Replace(well, "--ops-url https://reset.example", "", 1), "needs --ops-url"},
		{"a secret that is not there", well + "--ops-oidc-client-secret-file /nowhere", "--ops-oidc-client-secret-file"},
		{"a site that is read on the way", "--ops-url http://reset.example", "--ops-url must be a URL that begins with https://"},
		{"a site with a slash", "--ops-url https://reset.example/", "without a slash at its end"},
		{"a site at another path", "--ops-url https://reset.example/ops", "--ops-path"},
		{"a site with a query", "--ops-url https://reset.example?x=1", "--ops-url must be scheme, host"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, process := range []string{"api", "worker --driver simulator", "dev"} {
				command(t, nil, strings.Fields(process+" "+row.args)...).WantError(t, row.want)
			}
		})
	}
	// What is well gets as far as the Redis that is not there.
	secret := terminaltest.File(t, "s3cret\n")
	for _, args := range []string{
		well + "--ops-oidc-client-secret-file " + secret,
		"--ops-url http://localhost:9090/ops --ops-path /ops --ops-oidc-issuer http://127.0.0.1:1/ --ops-oidc-client-id x --ops-oidc-roles sre=operator,it=viewer",
	} {
		command(t, nil, strings.Fields("api --redis redis://127.0.0.1:1 --redis-patience 0 "+args)...).WantError(t, "cannot reach Redis")
	}
}
