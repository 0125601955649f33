package httpdriver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"text/template"
	"time"

	"batchreset/worker"
)

// What stands for the instance's ID and for its address in a URL template.
const (
	placeholder        = "{instance_id}"
	addressPlaceholder = "{address}"
)

// saveTimeout bounds the saving of a checkpoint, which must not be dropped
// because the attempt's time ends at that moment. It is shorter than the time
// that the worker leaves a driver to return.
const saveTimeout = 3 * time.Second

// Config says how the control plane is reached.
type Config struct {
	// URL is the template of the URL that resets an instance. It contains {instance_id} or
	// {address} in its path or query.
	URL string
	// LookURL is the template of the URL that says whether an instance is in its initial state,
	// on the same host as URL, because the token is sent there, too. Empty: there is none, and
	// the driver cannot look.
	LookURL string
	// Token is sent as a bearer token, if set.
	Token string
	// Idempotent says that the control plane does calls with the same
	// Idempotency-Key only once, so that a call whose answer was lost may be
	// repeated.
	Idempotent bool
	// Definite lists server errors (500 to 599) after which a reset is certainly not done
	// and not under way. Without it they leave a call in doubt, because a gateway may
	// answer for a control plane that is still at work.
	Definite []int
	// Body is a template (text/template) of the request's body, which must be JSON. It has
	// .InstanceID, .Address, .ItemID, .Attempt, .Key and .Labels, and the function json, which
	// writes a value as JSON. Empty: {"instance_id","item_id","attempt"}.
	Body string
	// TLS are the certificates for https; nil: those of the system, and none of our own.
	TLS *tls.Config
	// Words are what this control plane calls the states of a reset, beside the words that
	// are known anyway, each like done=wiped, running=wiping or failed=broken.
	Words []string
}

// Driver resets instances over HTTP.
type Driver struct {
	cfg    Config
	body   *template.Template
	rules  rules
	sender *http.Transport // for POST
	poller *http.Transport // for GET
	// Delays between polls when the control plane does not ask for one, and the
	// limit of a single poll.
	pollFirst, pollLast, pollTimeout time.Duration
}

// New returns a driver. Errors begin with the name of the setting: url, look_url, token_file, body,
// definite or words.
func New(cfg Config) (*Driver, error) {
	if err := checkTemplate(cfg.URL); err != nil {
		return nil, fmt.Errorf("url %w", err)
	}
	if cfg.LookURL != "" {
		if err := checkLook(cfg.LookURL, cfg.URL); err != nil {
			return nil, fmt.Errorf("look_url %w", err)
		}
	}
	if strings.ContainsFunc(cfg.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("token_file has a token with characters that a header cannot carry")
	}
	rules, err := newRules(cfg)
	if err != nil {
		return nil, err
	}
	body, err := newBody(cfg.Body)
	if err != nil {
		return nil, fmt.Errorf("body %w", err)
	}
	return &Driver{
		cfg:         cfg,
		body:        body,
		rules:       rules,
		sender:      newSender(cfg.TLS),
		poller:      newPoller(cfg.TLS),
		pollFirst:   time.Second,
		pollLast:    10 * time.Second,
		pollTimeout: 30 * time.Second,
	}, nil
}

func checkTemplate(pattern string) error {
	if !strings.Contains(pattern, placeholder) && !strings.Contains(pattern, addressPlaceholder) {
		return fmt.Errorf("must contain %s or %s", placeholder, addressPlaceholder)
	}
	if left := strings.NewReplacer(placeholder, "", addressPlaceholder, "").Replace(pattern); strings.ContainsAny(left, "{}") {
		return fmt.Errorf("has braces that are neither %s nor %s", placeholder, addressPlaceholder)
	}
	// An instance may only change the path or the query.
	a, err := expand(pattern, "a", "a")
	if err != nil {
		return err
	}
	b, err := expand(pattern, "b", "b")
	if err != nil {
		return err
	}
	switch {
	case a.Scheme != "http" && a.Scheme != "https" || a.Hostname() == "":
		return errors.New("must be an absolute URL with http or https")
	case a.User != nil:
		return errors.New("must not contain a user or password; use a bearer token")
	case a.Host != b.Host || a.Path == b.Path && a.RawQuery == b.RawQuery:
		return fmt.Errorf("must have %s or %s in its path or query", placeholder, addressPlaceholder)
	}
	return nil
}

func checkLook(look, reset string) error {
	if err := checkTemplate(look); err != nil {
		return err
	}
	a, _ := expand(look, "a", "a") // both are checked
	b, _ := expand(reset, "a", "a")
	if origin(a) != origin(b) {
		return fmt.Errorf("must have the scheme and host of url, %s", origin(b))
	}
	return nil
}

// expand puts an instance's ID and address into a template. Each stays what it is, one
// piece of the path or query, or is refused.
func expand(pattern, id, address string) (*url.URL, error) {
	if id == "" {
		return nil, errors.New("the instance ID is empty")
	}
	if address == "" && strings.Contains(pattern, addressPlaceholder) {
		return nil, errors.New("needs an address, and the fleet has none for it")
	}
	u, err := url.Parse(strings.NewReplacer(placeholder, escape(id), addressPlaceholder, escape(address)).Replace(pattern))
	if e, ok := errors.AsType[*url.Error](err); ok {
		return nil, fmt.Errorf("is not a URL: %w", e.Err)
	}
	// Servers take these for folders, escaped or not.
	if slices.ContainsFunc(strings.Split(u.Path, "/"), func(s string) bool { return s == "." || s == ".." }) {
		return nil, errors.New("must not have . or .. in its path")
	}
	return u, nil
}

// escape is for a path and for a query: unlike PathEscape it leaves nothing that means something in
// a query, and %20 is a space in both places.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// Repeatable says whether the control plane honours the driver key.
func (d *Driver) Repeatable() bool { return d.cfg.Idempotent }

// Close closes idle connections.
func (d *Driver) Close() { d.poller.CloseIdleConnections() }

// Reset asks the control plane to reset the instance and waits until it has.
// With a checkpoint it only waits.
func (d *Driver) Reset(ctx context.Context, a worker.Attempt) error {
	target, err := expand(d.cfg.URL, a.InstanceID, a.Address)
	if err != nil {
		return &worker.DriverError{
			Verdict: worker.Permanent,
			Message: fmt.Sprintf("the URL for instance %.80q cannot be used: %v", a.InstanceID, err),
		}
	}
	if a.Checkpoint != "" {
		// From before a change of the template it may lead elsewhere.
		where, err := sameOrigin(target, a.Checkpoint)
		if err != nil {
			return lost("the location of the accepted reset " + err.Error())
		}
		return d.follow(ctx, where, 0, true)
	}
	if a.Ambiguous && !d.cfg.Idempotent {
		return lost("a worker was lost after it may have sent the reset; the control plane cannot be asked and does not honour keys")
	}
	said, err := d.post(ctx, target, a)
	if err != nil {
		return err
	}
	accepted, err := d.rules.posted(said)
	if !accepted {
		return err
	}
	return d.accepted(ctx, target, a, said)
}

// accepted follows a reset that goes on after its answer.
func (d *Driver) accepted(ctx context.Context, target *url.URL, a worker.Attempt, said answer) error {
	where, err := sameOrigin(target, said.location())
	if err != nil {
		return d.rules.unknown("the control plane accepted the reset, but its location " + err.Error())
	}
	saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	// Without a checkpoint this attempt can still poll, only no later one.
	saved := a.Save(saving, where) == nil
	cancel()
	wait, _ := said.RetryAfter()
	return d.follow(ctx, where, cmp.Or(wait, d.pollFirst), saved)
}

// post sends the reset, at most once.
func (d *Driver) post(ctx context.Context, target *url.URL, a worker.Attempt) (answer, error) {
	body, err := d.bodyFor(a)
	if err != nil {
		return answer{}, &worker.DriverError{Verdict: worker.Permanent, Message: "nothing was sent: the body " + err.Error()}
	}
	s := newSend(ctx, a.MaySend)
	ctx = context.WithValue(ctx, sendKey{}, s)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { s.connect() }})
	// A reader of no known type, which net/http cannot rewind to send it again.
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), io.NopCloser(bytes.NewReader(body)))
	if err != nil {
		return answer{}, err
	}
	r.ContentLength = int64(len(body))
	d.dress(r)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", a.Key)
	response, err := traced(d.sender, r)
	if err == nil {
		defer func() { _ = response.Body.Close() }()
		return answer{worker.ReadAnswer(response, maxAnswer)}, nil
	}
	switch s.drop() {
	case sent:
		return answer{}, d.rules.unknown("the reset was sent and its answer was lost: " + reason(err))
	case asking:
		return answer{}, &worker.DriverError{Verdict: worker.NotSent, Message: "nothing was sent: it was not allowed in time"}
	case late:
		// The transport may report that as the end of its connection.
		return answer{}, &worker.DriverError{Verdict: worker.NotSent, Message: "nothing was sent: " + reason(s.refused)}
	}
	return answer{}, &worker.DriverError{Verdict: worker.Unreachable, Message: "nothing was sent: " + reason(err)}
}

// dress sets the headers of every request.
func (d *Driver) dress(r *http.Request) {
	r.Header.Set("User-Agent", "batchreset")
	r.Header.Set("Accept", "application/json")
	if d.cfg.Token != "" {
		r.Header.Set("Authorization", "Bearer "+d.cfg.Token)
	}
}

// lost is a reset of which nobody can find out any more what came of it.
func lost(message string) error {
	return &worker.DriverError{Verdict: worker.Unknown, Message: message}
}
