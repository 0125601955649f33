package serve

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"batchreset/cmd/harness/certs"
)

func TestWhoKnowsCallersIsChecked(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const iamRules = "iam:\n  tenants: {p1: acme}\n  roles: {member: [submit, read]}\n"
	const jwtRules = "jwt:\n  - claims: {repository: acme/phones}\n    tenant: acme\n    scopes: [submit]\n"
	credentials, iam, jwt := write("iam.yaml", "user: reset\npassword: secret\n"), write("iam-rules.yaml", iamRules), write("jwt-rules.yaml", jwtRules)
	base := func(more ...string) []string {
		return append([]string{"api", "--redis", "redis://127.0.0.1:1", "--redis-patience", "0s"}, more...)
	}
	keystone := func(rules string) []string {
		return base("--iam-url", "http://keystone.example:5000", "--iam-credentials-file", credentials, "--callers-file", rules)
	}
	issuer := func(rules string) []string {
		return base("--oidc-issuer", "https://issuer.example", "--oidc-audience", "reset", "--callers-file", rules)
	}
	for _, good := range [][]string{
		keystone(iam), issuer(jwt), append(keystone(write("both.yaml", iamRules+jwtRules)), "--oidc-issuer", "https://issuer.example", "--oidc-audience", "reset"),
	} {
		command(t, nil, good...).WantError(t, "connection refused") // it comes as far as Redis
	}
	authority, err := certs.NewAuthority(certs.Subject{})
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	if err := authority.Write(cert, key); err != nil {
		t.Fatal(err)
	}
	certificates := func(rules string) []string {
		return base("--tls-cert", cert, "--tls-key", key, "--tls-client-ca", cert, "--callers-file", write("certificates.yaml", rules))
	}
	const rule = "- {dns: a.example, tenant: acme, scopes: [read]}\n"
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"a second document":      {keystone(write("two.yaml", iamRules+"---\n"+jwtRules)), "more than one document"},
		"no credentials":         {base("--iam-url", "http://keystone.example", "--callers-file", iam), "--iam-url and --iam-credentials-file go together"},
		"no audience":            {base("--oidc-issuer", "https://issuer.example", "--callers-file", jwt), "--oidc-issuer and --oidc-audience go together"},
		"no rules":               {base("--oidc-issuer", "https://issuer.example", "--oidc-audience", "reset"), "--iam-url and --oidc-issuer need --callers-file"},
		"rules for nobody":       {base("--callers-file", iam), "--callers-file goes with --iam-url, --oidc-issuer or --tls-client-ca"},
		"no URL":                 {base("--oidc-issuer", "issuer.example", "--oidc-audience", "reset", "--callers-file", jwt), `--oidc-issuer must be a URL that begins with https:// or http://, not "issuer.example"`},
		"rules of the other":     {keystone(jwt), "the part iam goes with --iam-url"},
		"rules of the other one": {issuer(write("a.yaml", iamRules)), "the part iam goes with --iam-url"},
		"no such file":           {keystone(filepath.Join(dir, "nothing")), "--callers-file: open "},
		"an empty file":          {keystone(write("b.yaml", "")), "is empty"},
		"an unknown key":         {issuer(write("c.yaml", strings.Replace(jwtRules, "tenant:", "tenants:", 1))), "line 3"},
		"an unknown scope":       {issuer(write("d.yaml", strings.Replace(jwtRules, "[submit]", "[submit, wipe]", 1))), `jwt, rule 1: "wipe" is no scope: they are submit,read,cancel,operate,approve`},
		"no scopes":              {issuer(write("e.yaml", strings.Replace(jwtRules, "[submit]", "[]", 1))), "jwt, rule 1: has no scopes"},
		"no claims":              {issuer(write("f.yaml", strings.Replace(jwtRules, "{repository: acme/phones}", "{}", 1))), "jwt, rule 1: has no claims: anybody with a token of this issuer would be let in"},
		"no tenant":              {issuer(write("g.yaml", strings.Replace(jwtRules, "tenant: acme", "tenant: a/b", 1))), "jwt, rule 1: "},
		"no roles":               {keystone(write("h.yaml", "iam:\n  tenants: {p1: acme}\n")), "iam needs tenants (by the ID of their project) and roles (with their scopes)"},
		"a tenant that is none":  {keystone(write("i.yaml", strings.Replace(iamRules, "acme", "a/b", 1))), "iam.tenants.p1: "},
		"a role without a scope": {keystone(write("j.yaml", strings.Replace(iamRules, "[submit, read]", "[]", 1))), "iam.roles.member: has no scopes"},
		"no password":            {base("--iam-url", "http://keystone.example", "--iam-credentials-file", write("k.yaml", "user: reset\n"), "--callers-file", iam), "user and password are needed"},
		"a misspelled password":  {base("--iam-url", "http://keystone.example", "--iam-credentials-file", write("l.yaml", "user: reset\npasword: x\n"), "--callers-file", iam), "line 2"},
		"no key to seal with":    {base("--secret-key-file", write("m.key", "abc\n")), "--secret-key-file: " + filepath.Join(dir, "m.key") + " line 1 is not base64"},
	} {
		t.Run(name, func(t *testing.T) { command(t, nil, row.args...).WantError(t, row.want) })
	}
	command(t, nil, certificates("certificates:\n"+rule+"- {dns: a.example, tenant: globex, scopes: [read]}\n")...).WantError(t, "rule 2: is for the same name as rule 1")
}
