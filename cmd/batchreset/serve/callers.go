package serve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"slices"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"batchreset/api/auth"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// callersFlags say who knows callers that have no token or access key of this service.
type callersFlags struct {
	iamURL, iamCredentials string
	issuer, audience       string
	file                   string

	credentials auth.IAMCredentials // of the file, once checked
	rules       callersFile
	iam         *auth.IAM // once it was made; nil: none
}

// callersFile says what those callers may do.
type callersFile struct {
	IAM *auth.IAMRules `yaml:"iam"`
	JWT []auth.JWTRule `yaml:"jwt"`
	// Certificates are those of callers who must have one.
	Certificates []auth.CertificateRule `yaml:"certificates"`
}

func (f *callersFlags) define(flags *pflag.FlagSet) {
	flags.StringVar(&f.iamURL, "iam-url", "", "accept the tokens of the OpenStack Identity API v3 (Keystone, IAM) at this `URL` as X-Auth-Token, too")
	flags.StringVar(&f.iamCredentials, "iam-credentials-file", "", "YAML `file` with the user, password, user_domain, project and project_domain with which this service asks --iam-url about tokens")
	flags.StringVar(&f.issuer, "oidc-issuer", "", "accept the bearer tokens (JWT) of the OpenID Connect issuer at this `URL`, such as https://token.actions.githubusercontent.com")
	flags.StringVar(&f.audience, "oidc-audience", "", "the `audience` that bearer tokens must be for")
	flags.StringVar(&f.file, "callers-file", "", "YAML `file` that says which tenant and scopes callers of --iam-url, --oidc-issuer and --tls-client-ca have; see deploy/CALLERS.md")
}

// check reads the files. certificates says that callers must have one. Its errors name the flag.
func (f *callersFlags) check(certificates bool) error {
	iam, jwt := f.iamURL != "", f.issuer != ""
	switch {
	case iam != (f.iamCredentials != ""):
		return errors.New("--iam-url and --iam-credentials-file go together")
	case jwt != (f.audience != ""):
		return errors.New("--oidc-issuer and --oidc-audience go together")
	case (iam || jwt) && f.file == "":
		return errors.New("--iam-url and --oidc-issuer need --callers-file: it says who may do what")
	case f.file != "" && !iam && !jwt && !certificates:
		return errors.New("--callers-file goes with --iam-url, --oidc-issuer or --tls-client-ca, none of which is there")
	case f.file == "":
		return nil
	}
	for flag, text := range map[string]string{"iam-url": f.iamURL, "oidc-issuer": f.issuer} {
		if u, err := url.Parse(text); text != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("--%s must be a URL that begins with https:// or http://, not %q", flag, text)
		}
	}
	if err := readYAML(f.file, &f.rules); err != nil {
		return fmt.Errorf("--callers-file: %w", err)
	}
	if err := f.checkRules(certificates); err != nil {
		return fmt.Errorf("--callers-file: %s: %w", f.file, err)
	}
	if !iam {
		return nil
	}
	if err := readYAML(f.iamCredentials, &f.credentials); err != nil {
		return fmt.Errorf("--iam-credentials-file: %w", err)
	}
	if f.credentials.User == "" || f.credentials.Password == "" {
		return fmt.Errorf("--iam-credentials-file: %s: user and password are needed", f.iamCredentials)
	}
	return nil
}

func (f *callersFlags) checkRules(certificates bool) error {
	switch {
	case (f.iamURL != "") != (f.rules.IAM != nil):
		return errors.New("the part iam goes with --iam-url")
	case (f.issuer != "") != (f.rules.JWT != nil):
		return errors.New("the part jwt goes with --oidc-issuer")
	case f.rules.Certificates != nil && !certificates:
		return errors.New("the part certificates goes with --tls-client-ca")
	}
	if f.rules.IAM != nil {
		if len(f.rules.IAM.Tenants) == 0 || len(f.rules.IAM.Roles) == 0 {
			return errors.New("iam needs tenants (by the ID of their project) and roles (with their scopes)")
		}
		for project, tenant := range f.rules.IAM.Tenants {
			if err := tasks.CheckTenant(tenant); err != nil {
				return fmt.Errorf("iam.tenants.%s: %w", project, err)
			}
		}
		for role, scopes := range f.rules.IAM.Roles {
			if err := checkScopes(scopes); err != nil {
				return fmt.Errorf("iam.roles.%s: %w", role, err)
			}
		}
	}
	for i, rule := range f.rules.JWT {
		err := errors.Join(tasks.CheckTenant(rule.Tenant), checkScopes(rule.Scopes))
		if len(rule.Claims) == 0 {
			err = errors.New("has no claims: anybody with a token of this issuer would be let in")
		}
		if err != nil {
			return fmt.Errorf("jwt, rule %d: %w", i+1, err)
		}
	}
	for i, rule := range f.rules.Certificates {
		err := errors.Join(tasks.CheckTenant(rule.Tenant), checkScopes(rule.Scopes))
		if len(rule.Names()) != 1 {
			err = errors.New("has to have one of uri, dns, email and common_name")
		}
		if before := slices.IndexFunc(f.rules.Certificates[:i], rule.SameNames); err == nil && before >= 0 {
			err = fmt.Errorf("is for the same name as rule %d, which wins: this one would never count", before+1)
		}
		if err != nil {
			return fmt.Errorf("certificates, rule %d: %w", i+1, err)
		}
	}
	return nil
}

func checkScopes(scopes []tasks.Scope) error {
	if len(scopes) == 0 {
		return errors.New("has no scopes")
	}
	for _, scope := range scopes {
		if !slices.Contains(tasks.Scopes, scope) {
			return fmt.Errorf("%q is no scope: they are %s", scope, terminal.Join(tasks.Scopes))
		}
	}
	return nil
}

// readYAML reads a file in which every key must be known.
func readYAML(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(into); errors.Is(err, io.EOF) {
		return fmt.Errorf("%s is empty", path)
	} else if err != nil {
		return fmt.Errorf("%s: %w", path, plainYAML(nil, err))
	}
	if more := new(yaml.Node); !errors.Is(d.Decode(more), io.EOF) { // it would not count
		return fmt.Errorf("%s: there is more than one document in it", path)
	}
	return nil
}

// configure makes those who know callers, for the settings of the API.
func (f *callersFlags) configure(clock auth.Clock, log *slog.Logger) (iam *auth.IAM, jwt *auth.JWT) {
	if f.rules.IAM != nil {
		f.iam = auth.NewIAM(f.iamURL, f.credentials, *f.rules.IAM, clock, log)
	}
	if f.rules.JWT != nil {
		jwt = auth.NewJWT(f.issuer, f.audience, f.rules.JWT, clock, log)
	}
	return f.iam, jwt
}

// close ends what configure has begun.
func (f *callersFlags) close() {
	if f.iam != nil {
		f.iam.Close()
	}
}
