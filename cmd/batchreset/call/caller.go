package call

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// callerFlags say which server a caller's command asks, and as whom.
type callerFlags struct {
	server    string
	token     string
	tokenFile string
	context   string
	contexts  contexts
	// certificates are whom to trust, and what to show.
	certificates certificateFlags
	output       terminal.Output
}

const defaultServer = "http://127.0.0.1:8080"

// define adds the flags. forms are those of --output that the command has and others do not.
func (f *callerFlags) define(flags *pflag.FlagSet, std *terminal.Streams, forms ...string) {
	flags.StringVar(&f.server, "server", "", "`URL` of the service (default: the context's, or "+defaultServer+")")
	flags.StringVar(&f.token, "token", "", "token that says which tenant you are (better in BATCHRESET_TOKEN than on the command line, where other users of the machine see it)")
	flags.StringVar(&f.tokenFile, "token-file", "", "read the token from this `file`")
	flags.StringVar(&f.context, "context", "", "`name` of what 'batchreset login' has kept (default: the current context)")
	f.contexts.define(flags, std)
	f.certificates.define(flags)
	terminal.Alternatives(flags, "token", "token-file")
	for _, name := range []string{"server", "token", "token-file"} {
		terminal.Yields(flags, name, "context")
	}
	flags.Duration("timeout", 0, "end with exit code 124 when this much time is over, such as 1500ms or 2h; what was submitted goes on; 0 = no bound")
	f.output.Define(flags, forms...)
}

// target is the server, and the token for it, that the flags and the context say. The name is
// that of the context whose token it is.
func (f *callerFlags) target() (to savedContext, err error) {
	to = savedContext{Server: strings.TrimRight(f.server, "/"), Token: f.token}
	if f.tokenFile != "" {
		if to.Token, err = terminal.ReadSecret(f.tokenFile); err != nil {
			return to, fmt.Errorf("--token-file: %w", err)
		}
	}
	kept, err := f.kept(to)
	if err != nil {
		return to, err
	}
	to.Server = cmp.Or(to.Server, kept.Server, defaultServer)
	if to.Server == kept.Server {
		to.CA, to.Cert, to.Key = kept.CA, kept.Cert, kept.Key
	}
	if to.Token == "" && to.Server == kept.Server {
		to.Name, to.Token = kept.Name, kept.Token
	}
	switch {
	case to.Token != "" || f.certificates.cert != "":
		return to, nil
	case kept.Name != "":
		return to, fmt.Errorf("--token is missing: that of the context %s is for %s, and is not sent to another server", kept.Name, kept.Server)
	}
	return to, errors.New("--token is missing: give --token, --token-file, BATCHRESET_TOKEN or BATCHRESET_TOKEN_FILE, or --cert-file, or keep one with 'batchreset login'")
}

// kept is the context that is meant, if any is and if it is needed.
func (f *callerFlags) kept(to savedContext) (savedContext, error) {
	if f.context != "" {
		s, err := f.contexts.read(f.context)
		if err != nil {
			err = fmt.Errorf("--context: %w", err)
		}
		return s, err
	}
	if to.Server != "" && to.Token != "" {
		return savedContext{}, nil
	}
	name, err := f.contexts.current()
	if err != nil || name == "" {
		return savedContext{}, err
	}
	return f.contexts.read(name)
}

// connect makes the client of the flags. What it has to say while it waits for a
// server goes to notices.
func (f *callerFlags) connect(notices *notices) (*client.Client, error) {
	to, err := f.target()
	if err != nil {
		return nil, err
	}
	return newClient(to, &f.certificates, notices)
}

// newClient makes a client. Its errors name the flag.
func newClient(to savedContext, certificates *certificateFlags, notices *notices) (*client.Client, error) {
	options := []client.Option{client.OnRetry(notices.retry)}
	switch config, err := certificates.before(to).config(); {
	case err != nil:
		return nil, err
	case config != nil:
		options = append(options, client.TLS(config))
	}
	c, err := client.New(to.Server, to.Token, options...)
	if err != nil {
		return nil, fmt.Errorf("--%w", err) // it begins with server or token
	}
	return c, nil
}

// jobArgs refuses anything but job IDs, at least one and at most limit of them;
// 0 is no limit.
func jobArgs(limit int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("the job ID is missing (see '%s --help')", cmd.CommandPath())
		}
		if limit > 0 && len(args) > limit {
			return fmt.Errorf("unexpected argument %q (see '%s --help')", args[limit], cmd.CommandPath())
		}
		for _, id := range args {
			if !tasks.ValidJobID(id) {
				return fmt.Errorf("%.80q is not a job ID, which is 32 characters of 0-9 a-f", id)
			}
		}
		return nil
	}
}

// notices is standard error for the goroutines of a command. While a progress
// bar is shown it writes above the bar.
type notices struct {
	mu   sync.Mutex
	w    io.Writer
	last time.Time
}

// Write writes whole lines, which may have text of others in them.
func (n *notices) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, err := io.WriteString(n.w, tasks.VisibleLines(string(b)))
	return len(b), err
}

// redirect sends what follows to w, and returns what puts that back.
func (n *notices) redirect(w io.Writer) (restore func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.w
	n.w = w
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.w = before
	}
}

// retry tells why the command waits: not for every hiccup, and once in a while
// if a hundred jobs wait for the same server.
func (n *notices) retry(err error, wait time.Duration) {
	const rarely = 5 * time.Second
	n.mu.Lock()
	defer n.mu.Unlock()
	if wait < time.Second || time.Since(n.last) < rarely {
		return
	}
	n.last = time.Now()
	fmt.Fprintf(n.w, "batchreset: waiting to try again: %s\n", tasks.Visible(err.Error()))
}
