package serve

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"

	"github.com/spf13/pflag"

	"batchreset/api/ops/login"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// operatorIssuerFlags say at which OpenID Connect issuer operators log in. That of the API's callers is another
// matter: see callersFlags.
type operatorIssuerFlags struct {
	url, clientID, secretFile string
	groups                    []string
	groupsClaim, nameClaim    string

	secret string                // of secretFile, once checked
	roles  map[string]tasks.Role // of groups
}

func (f *operatorIssuerFlags) define(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "ops-oidc-issuer", "", "let operators log in at the OpenID Connect issuer at this `URL`, too; give api and worker the same")
	flags.StringVar(&f.clientID, "ops-oidc-client-id", "", "the `ID` under which --ops-oidc-issuer knows this service")
	flags.StringVar(&f.secretFile, "ops-oidc-client-secret-file", "", "read the secret that goes with it from this `file`; none: it is a public client")
	flags.StringSliceVar(&f.groups, "ops-oidc-roles", nil, "the `roles` of the issuer's groups, such as sre=operator,managers=approver: "+terminal.Join(tasks.Roles)+"; somebody in several has the greatest, somebody in none is not let in")
	flags.StringVar(&f.groupsClaim, "ops-oidc-groups-claim", login.DefaultGroupsClaim, "the `claim` that has somebody's groups")
	flags.StringVar(&f.nameClaim, "ops-oidc-name-claim", login.DefaultNameClaim, "the `claim` that is somebody's name here; an email must be verified by the issuer (email_verified)")
}

// check reads the secret. Its errors name the flag.
func (f *operatorIssuerFlags) check(site string) (err error) {
	if f.url == "" {
		if f.clientID != "" || f.secretFile != "" || f.groups != nil {
			return errors.New("--ops-oidc-client-id, --ops-oidc-client-secret-file and --ops-oidc-roles go with --ops-oidc-issuer")
		}
		return nil
	}
	switch {
	case !safeURL(f.url):
		return fmt.Errorf("--ops-oidc-issuer must be a URL that begins with https://, or with http:// on this machine, not %q", f.url)
	case f.clientID == "":
		return errors.New("--ops-oidc-issuer needs --ops-oidc-client-id")
	case len(f.groups) == 0:
		return errors.New("--ops-oidc-issuer needs --ops-oidc-roles: without them nobody is let in")
	case site == "":
		return errors.New("--ops-oidc-issuer needs --ops-url: the issuer sends browsers back there")
	}
	if f.roles, err = login.ParseIssuerRoles(f.groups); err != nil {
		return fmt.Errorf("--ops-oidc-roles %w", err)
	}
	if f.secretFile != "" {
		if f.secret, err = terminal.ReadSecret(f.secretFile); err != nil {
			return fmt.Errorf("--ops-oidc-client-secret-file: %w", err)
		}
	}
	return nil
}

// configure makes the issuer; nil: there is none.
func (f *operatorIssuerFlags) configure(site string, clock login.Clock, log *slog.Logger) *login.Issuer {
	if f.url == "" {
		return nil
	}
	return login.NewIssuer(login.IssuerConfig{
		URL: f.url, ClientID: f.clientID, ClientSecret: f.secret, Roles: f.roles, GroupsClaim: f.groupsClaim, NameClaim: f.nameClaim,
		Site: site, Clock: clock, Log: log,
	})
}

// checkSiteURL checks where browsers find the site, which is below a path. Browsers keep the cookies of log-ins
// over https only, or at this machine.
func checkSiteURL(text, path string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || !safeURL(text) {
		return fmt.Errorf("--ops-url must be a URL that begins with https://, or with http:// on this machine, not %q", text)
	}
	if u.EscapedPath() != path || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return fmt.Errorf("--ops-url must be scheme, host and --ops-path (%q), without a slash at its end, not %q", path, text)
	}
	return nil
}

// safeURL reports whether nobody on the way can read what is sent to a URL.
func safeURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return false
	}
	if u.Scheme == "https" {
		return true
	}
	host := u.Hostname()
	ip, err := netip.ParseAddr(host)
	return u.Scheme == "http" && (host == "localhost" || err == nil && ip.IsLoopback())
}
