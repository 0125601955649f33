package serve

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/worker/notify"
	"batchreset/worker/webhook"
)

// notifyFlags say which receivers operators are told through.
type notifyFlags struct {
	urls, format, secret string // urls and secret are files

	cfg notify.Config // of the flags, once they are checked
}

func formatNames() (names []string) {
	for _, f := range notify.Formats {
		names = append(names, string(f))
	}
	return names
}

func (f *notifyFlags) define(flags *pflag.FlagSet) {
	flags.StringVar(&f.urls, "notify-url-file", "", "tell operators at the URLs in this `file`, one in each line, of what needs them: runs that wait for people, forgotten halts, drivers without workers, control planes that cannot be reached, a full Redis, disabled webhooks; of the processes that have it one at a time tells")
	flags.StringVar(&f.format, "notify-format", string(notify.Slack), "what these URLs take: 'slack' (also Mattermost, and Discord below /slack), 'teams' (a workflow of Microsoft Teams), or 'webhook' (signed JSON)")
	flags.StringVar(&f.secret, "notify-secret-file", "", "`file` with the secret that signs in the format webhook: whsec_ and base64")
}

// check completes and checks the settings.
func (f *notifyFlags) check() error {
	f.cfg.Format = notify.Format(f.format)
	switch {
	case !slices.Contains(notify.Formats, f.cfg.Format):
		return fmt.Errorf("--notify-format must be 'slack', 'teams' or 'webhook', not %q", f.format)
	case f.urls == "" && f.secret != "":
		return errors.New("--notify-secret-file needs --notify-url-file")
	case f.urls == "":
		return nil
	case f.cfg.Format == notify.Webhook && f.secret == "":
		return errors.New("--notify-format webhook needs --notify-secret-file: its messages are signed")
	case f.cfg.Format != notify.Webhook && f.secret != "":
		return fmt.Errorf("--notify-secret-file is for --notify-format webhook, and this is %s", f.cfg.Format)
	}
	if f.secret != "" {
		secret, err := terminal.ReadSecret(f.secret)
		if err == nil {
			_, err = standardwebhooks.NewWebhook(secret)
		}
		if err != nil {
			return fmt.Errorf("--notify-secret-file: %w", err)
		}
		f.cfg.Secret = secret
	}
	urls, err := readReceivers(f.urls)
	if err != nil {
		return fmt.Errorf("--notify-url-file: %w", err)
	}
	f.cfg.URLs = urls
	return nil
}

// readReceivers reads a file with a URL in each line. Empty lines and those that begin with # are left out. An error names the
// line and not the URL, which can be a secret.
func readReceivers(path string) (urls []string, err error) {
	text, err := os.ReadFile(path) //nolint:gosec // who starts the process names it
	if err != nil {
		return nil, err
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		u, err := url.Parse(line)
		switch {
		case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
			return nil, fmt.Errorf("%s: line %d is not a URL such as https://hooks.example/…", path, n)
		case slices.Contains(urls, line):
			return nil, fmt.Errorf("%s: line %d is there twice", path, n)
		}
		urls = append(urls, line)
	}
	if len(urls) == 0 {
		return nil, fmt.Errorf("%s has no URL in it", path)
	}
	if len(urls) > notify.MaxReceivers {
		return nil, fmt.Errorf("%s has %d URLs, the limit is %d", path, len(urls), notify.MaxReceivers)
	}
	return urls, nil
}

// addNotifier adds what tells operators, if somebody is to be told.
func (p *process) addNotifier() {
	cfg := p.ops.notify.cfg
	if len(cfg.URLs) == 0 {
		return
	}
	cfg.Site = p.ops.url
	sources := notify.Sources{Runs: p.db.Runs, Census: p.db.Census, Planes: p.db.Workers, Storage: p.db.Storage, Endpoints: p.db.Endpoints}
	sender := webhook.NewSender(terminal.UserAgent(), true, p.db.Redis.Now)
	notifier := notify.New(cfg, p.db.Alerts, sources, sender, p.log)
	p.metrics = append(p.metrics, notifier)
	p.work = append(p.work, part{"what tells operators", notifier.Run})
}

func newNotifyCommand(std *terminal.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notify",
		Short: "Try what tells operators of what needs them",
		Long: `An api or a worker with --notify-url-file tells operators of what needs them. See
deploy/README.md, "Being told".`,
	}
	cmd.AddCommand(newNotifyTestCommand(std))
	return cmd
}

func newNotifyTestCommand(std *terminal.Streams) *cobra.Command {
	var (
		flags  notifyFlags
		output terminal.Output
	)
	cmd := &cobra.Command{
		Use:   "test --notify-url-file FILE",
		Short: "Send a test to every URL, and say which has taken it",
		Long: `Sends a test to every URL of the file, as the service would, and says which has taken
it. It needs no Redis. A URL is named by its place in the file and its host, because the
rest of it is often a secret.`,
		Example: `  batchreset notify test --notify-url-file notify-urls.txt
  batchreset notify test --notify-url-file gateway.txt --notify-format webhook --notify-secret-file secret.txt`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.urls == "" {
				return errors.New("--notify-url-file is missing")
			}
			if err := flags.check(); err != nil {
				return err
			}
			sender := webhook.NewSender(terminal.UserAgent(), true, time.Now)
			defer sender.Close()
			notifier := notify.New(flags.cfg, nil, notify.Sources{}, sender, newLogger(std.Err))
			names, results := notifier.Test(cmd.Context())
			tried, failed := make([]triedReceiver, len(names)), 0
			for i, err := range results {
				tried[i] = triedReceiver{Receiver: names[i], Taken: err == nil}
				if err != nil {
					failed++
					tried[i].Error = err.Error()
				}
			}
			if err := output.Show(std.Out, triedView(tried)); err != nil {
				return err
			}
			if failed > 0 {
				return terminal.WithCode(terminal.ExitOther, fmt.Errorf("%d of %d have not taken it", failed, len(results)))
			}
			return nil
		},
	}
	flags.define(cmd.Flags())
	output.Define(cmd.Flags())
	return cmd
}

// triedReceiver is what became of a test.
type triedReceiver struct {
	Receiver string `json:"receiver"`
	Taken    bool   `json:"taken"`
	Error    string `json:"error,omitempty"`
}

func triedView(tried []triedReceiver) terminal.View {
	return terminal.View{
		List:    "receivers",
		Rows:    terminal.Each(tried),
		Columns: []string{"receiver", "taken", "error"},
		Text: func(w io.Writer) error {
			for _, t := range tried {
				text := "taken"
				if !t.Taken {
					text = "not taken: " + t.Error
				}
				if _, err := fmt.Fprintf(w, "%s: %s\n", t.Receiver, text); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
