package call

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

const (
	// soon is before what time an end is worth a word.
	soon = 14 * 24 * time.Hour
	// clocksDiffer is from when on a difference between clocks is worth a word: times such as
	// --not-before 10m are counted by this machine's.
	clocksDiffer = 5 * time.Second
)

// Doctor is the part of 'batchreset doctor' that looks at the service as a caller does.
type Doctor struct {
	flags callerFlags
	std   *terminal.Streams
}

// Define gives the command the flags of callers.
func (d *Doctor) Define(cmd *cobra.Command, std *terminal.Streams) {
	d.std = std
	d.flags.define(cmd.Flags(), std)
	offerWhatThereIs(std, cmd)
}

// Show prints what was found.
func (d *Doctor) Show(found *terminal.Checkup) error {
	return d.flags.output.Show(d.std.Out, found.View())
}

// Examine looks at the service as a caller, if there is a server or a token to do it with. Its error is about
// the command line.
func (d *Doctor) Examine(ctx context.Context, found *terminal.Checkup) error {
	to, err := d.flags.target()
	noToken := err
	switch {
	case err != nil && (d.flags.tokenFile != "" || d.flags.context != ""):
		return err // which was named, and cannot be read or is for another server
	case err != nil && d.flags.server == "":
		found.Skip("the service as a caller", err.Error())
		return nil
	case err != nil:
		to = savedContext{Server: strings.TrimRight(d.flags.server, "/"), Token: "none"} // nothing that is asked needs one
	}
	c, err := newClient(to, &d.flags.certificates, &notices{w: io.Discard})
	if err != nil {
		return err
	}
	defer c.Close()
	found.As("caller")
	if !d.server(ctx, found, c, to) {
		return nil
	}
	if noToken != nil {
		found.Skip("credentials", noToken.Error())
		return nil
	}
	credentials(ctx, found, c)
	return nil
}

// server looks at the service without credentials, and reports whether it answers.
func (d *Doctor) server(ctx context.Context, found *terminal.Checkup, c *client.Client, to savedContext) bool {
	health, err := c.Health(ctx)
	if err != nil {
		found.Fail("server", adviceOn(err), "%s: %v", c.Server(), err)
		found.Skip("credentials", "the server does not answer")
		return false
	}
	from := ""
	if to.Name != "" {
		from = ", the context " + to.Name
	}
	found.OK("server", "%s%s answers within %s, version %s", c.Server(), from, health.Took.Round(time.Millisecond), health.Version)
	switch accepting, err := c.Accepting(ctx); {
	case err != nil:
		found.Fail("ready", "tell its operators; 'batchreset doctor --redis-file FILE' shows them more", "it cannot work: %v", err)
	case !accepting:
		found.Warn("ready", "tell its operators: its Redis is nearly full. Halt, cancel and status work", "it takes no new work for now")
	default:
		found.OK("ready", "it takes new work")
	}
	lookAtTLS(found, to.Server, health.TLS)
	switch {
	case !health.Dated:
		found.Skip("the clocks", "the server's answer has no date")
	case health.Ahead.Abs() > clocksDiffer+health.Doubt:
		found.Warn("clock", "set this machine's clock, or the server's (NTP): times such as --not-before 10m are counted by this one",
			"this machine's clock is %s %s the server's", health.Ahead.Abs().Round(time.Second), aheadOrBehind(health.Ahead))
	default:
		found.OK("clock", "this machine's agrees with the server's to %s", (health.Ahead.Abs() + health.Doubt).Round(100*time.Millisecond))
	}
	return true
}

func aheadOrBehind(ahead time.Duration) string {
	if ahead > 0 {
		return "ahead of"
	}
	return "behind"
}

// adviceOn says what to do about a server that does not answer as one should.
func adviceOn(err error) string {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, other := errors.AsType[x509.HostnameError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	switch e, answered := errors.AsType[*client.Error](err); {
	case unknown:
		return "name the file of the authority that has signed the server's certificate with --ca-file, or install it on this machine"
	case other || invalid:
		return "tell the operators of the server: its certificate does not fit"
	case answered && e.Code == "":
		return "is --server the URL of the service? Something else answers there, such as a proxy"
	case answered:
		return "tell the operators of the server"
	}
	return "is --server right, is the service running, and does the network let this machine reach it?"
}

// lookAtTLS looks at how the token gets to the server.
func lookAtTLS(found *terminal.Checkup, server string, state *tls.ConnectionState) {
	u, err := url.Parse(server)
	switch {
	case err != nil: // cannot be: it was asked
	case state == nil && isLoopback(u.Hostname()):
		found.OK("tls", "none, on this machine alone")
	case state == nil:
		found.Warn("tls", "use a URL that begins with https", "none: everybody on the way to %s can read the token", u.Hostname())
	case len(state.PeerCertificates) > 0 && time.Until(state.PeerCertificates[0].NotAfter) < soon:
		found.Warn("tls", "renew the certificate", "%s, and the server's certificate ends at %s", tls.VersionName(state.Version), terminal.Clock(state.PeerCertificates[0].NotAfter))
	case len(state.PeerCertificates) > 0:
		found.OK("tls", "%s, certificate until %s", tls.VersionName(state.Version), terminal.Clock(state.PeerCertificates[0].NotAfter))
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// credentials looks at who the caller is.
func credentials(ctx context.Context, found *terminal.Checkup, c *client.Client) {
	who, err := c.WhoAmI(ctx)
	if err != nil {
		advice := "give another --token, --token-file or --context; operators make one with 'batchreset token add'"
		if e, answered := errors.AsType[*client.Error](err); !answered || e.HTTPStatus >= 500 {
			advice = "try again, and tell the operators if it stays so"
		}
		found.Fail("credentials", advice, "%v", err)
		return
	}
	owner := who.Owner
	if owner == "" {
		owner = "nobody by name"
	}
	what, renew := "token", "ask the operators for a new one ('batchreset token add')"
	if who.Kind == string(tasks.KindCertificate) {
		what, renew = "certificate", "renew it, where it is from"
	}
	found.OK("credentials", "%s %s of tenant %s, owned by %s", what, who.TokenID, who.Tenant, owner)
	lookAtScopes(found, who.Scopes)
	left := time.Until(who.ExpiresAt)
	switch {
	case who.ExpiresAt.IsZero():
		found.OK("expiry", "the %s does not expire", what)
	case left < soon:
		found.Warn("expiry", renew, "the %s ends at %s", what, terminal.Clock(who.ExpiresAt))
	default:
		found.OK("expiry", "the %s is good until %s", what, terminal.Clock(who.ExpiresAt))
	}
}

// lookAtScopes says what the token allows. What it does not may be meant so; one that may not even read is
// of little use.
func lookAtScopes(found *terminal.Checkup, has []string) {
	var others []string
	for _, scope := range tasks.Scopes {
		if !slices.Contains(has, string(scope)) {
			others = append(others, string(scope))
		}
	}
	text := strings.Join(has, ", ")
	if others != nil {
		text += "; not " + strings.Join(others, ", ")
	}
	if !slices.Contains(has, string(tasks.ScopeRead)) {
		found.Warn("scopes", "nothing can be followed with this token: ask the operators for one with the scope read", "%s", text)
		return
	}
	found.OK("scopes", "%s", text)
}
