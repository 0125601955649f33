package call

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/proof"
)

// maxProof is far more than a proof or a set of keys has.
const maxProof = 16 << 20

func newProofVerifyCommand(std *terminal.Streams) *cobra.Command {
	var (
		flags callerFlags
		keys  string
	)
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a proof, and show what it says",
		Long: `Checks that a proof of a job or a run is just as the service has signed it, and that it
does not contradict itself: the list's hash is made anew, and its counts are those of its
items. Any byte that was changed is found. FILE may be - for standard input.

The keys are those of --keys: a file, or the URL of a set. Without it the server is
asked. Save the set (/v1/proof-keys) while you trust the server: with the file, a proof can
be checked without a network, and when the service is long gone.

The exit code is 0 if the proof is genuine, whatever became of the job, and 2 if it does
not verify. --output json prints all that it says, jsonl and csv have a row for each
instance.`,
		Example: `  curl -s https://reset.example/v1/proof-keys > keys.json
  batchreset proof verify job.jws --keys keys.json
  batchreset proof verify run.jsonl --keys keys.json
  batchreset proof verify job.jws --keys keys.json --output json | jq .statement.items`,
		Args:              terminal.ArgsFromUsage,
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := openProof(std.In, args[0])
			if err != nil {
				return err
			}
			defer func() { _ = file.Close() }()
			if keys == "" {
				if keys, err = flags.keysURL(); err != nil {
					return err
				}
			}
			set, err := readKeys(cmd.Context(), keys, &flags.certificates)
			if err != nil {
				return fmt.Errorf("--keys: %w", err)
			}
			verify := verifyJob
			if file.ofRun {
				verify = verifyRun
			}
			view, err := verify(file, origin{set, redacted(keys)}, flags.output)
			if err != nil {
				return err
			}
			return flags.output.Show(std.Out, view)
		},
	}
	flags.define(cmd.Flags(), std)
	cmd.Flags().StringVar(&keys, "keys", "", "the service's keys: a `file`, or a URL (default: /v1/proof-keys of the server)")
	return cmd
}

// proofFile is a proof of a job, or of a run.
type proofFile struct {
	*bufio.Reader
	io.Closer
	ofRun bool
}

// openProof opens a file, or standard input. The proof of a run begins as JSON does, that of a job cannot.
func openProof(in io.Reader, name string) (proofFile, error) {
	file := io.NopCloser(in)
	if name != "-" {
		var err error
		if file, err = os.Open(name); err != nil {
			return proofFile{}, err
		}
	}
	text := bufio.NewReader(file)
	first, err := text.Peek(1)
	if err != nil && !errors.Is(err, io.EOF) {
		return proofFile{}, errors.Join(err, file.Close())
	}
	return proofFile{text, file, string(first) == "{"}, nil
}

// origin are keys, and where they are from.
type origin struct {
	keys  proof.Keys
	where string
}

func notProven(err error) error {
	return terminal.WithCode(terminal.ExitSome, fmt.Errorf("the proof does not verify: %w", err))
}

// verifyJob checks the proof of a job. A line end after it is ours, see 'proof JOB'; anything else is a
// part of it.
func verifyJob(in io.Reader, from origin, _ terminal.Output) (terminal.View, error) {
	text, err := io.ReadAll(io.LimitReader(in, maxProof+1))
	switch {
	case err != nil:
		return terminal.View{}, err
	case len(text) > maxProof:
		return terminal.View{}, fmt.Errorf("the file is longer than %d bytes, and is no proof", maxProof)
	}
	v := verified[proof.Statement]{Keys: from.where}
	if v.Statement, v.KeyID, err = from.keys.Verify(strings.TrimSuffix(string(text), "\n")); err != nil {
		return terminal.View{}, notProven(err)
	}
	return terminal.View{
		Document: v, Rows: terminal.Each(v.Statement.Items), Columns: provenColumns,
		Text: func(w io.Writer) error { return v.write(w, "Job", v.Statement.JobID, provenJob(v.Statement)) },
	}, nil
}

// runWithItems is what the proof of a run says, in one document.
type runWithItems struct {
	proof.RunStatement

	Items []proof.RunItem `json:"items"`
}

// verifyRun checks the proof of a run. Its instances are kept if they are to be shown.
func verifyRun(in io.Reader, from origin, output terminal.Output) (_ terminal.View, err error) {
	v := verified[runWithItems]{Keys: from.where}
	if v.Statement.RunStatement, v.KeyID, err = from.keys.VerifyRun(in, func(it proof.RunItem) {
		if !output.IsText() {
			v.Statement.Items = append(v.Statement.Items, it)
		}
	}); err != nil {
		return terminal.View{}, notProven(err)
	}
	return terminal.View{
		Document: v, Rows: terminal.Each(v.Statement.Items), Columns: append(slices.Clone(provenColumns), "round"),
		Text: func(w io.Writer) error {
			return v.write(w, "Run", v.Statement.RunID, provenRun(v.Statement.RunStatement))
		},
	}, nil
}

// provenColumns are those of a statement's items.
var provenColumns = []string{"instance_id", "item_id", "state", "attempts", "error_code", "evidence", "driver", "started_at", "finished_at"}

// keysURL is where the server of the flags, or of the context, has its keys. Nobody needs a token
// for them.
func (f *callerFlags) keysURL() (string, error) {
	kept, err := f.kept(savedContext{Server: f.server, Token: "not needed"})
	return cmp.Or(strings.TrimRight(f.server, "/"), kept.Server, defaultServer) + "/v1/proof-keys", err
}

func readKeys(ctx context.Context, where string, certificates *certificateFlags) (keys proof.Keys, err error) {
	var text []byte
	if strings.HasPrefix(where, "http://") || strings.HasPrefix(where, "https://") {
		text, err = fetch(ctx, where, certificates)
	} else {
		text, err = os.ReadFile(where)
	}
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(text, &keys)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		err = fmt.Errorf("is no JSON, such as /v1/proof-keys gives: %w", syntax)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", redacted(where), err)
	}
	return keys, nil
}

// redacted is a file, or a URL without the password that it may have.
func redacted(where string) string {
	if u, err := url.Parse(where); err == nil && u.User != nil {
		return u.Redacted()
	}
	return where
}

// fetch reads what everybody may read, without a token. Only the address that was named is asked:
// whoever can send us elsewhere could choose the keys.
func fetch(ctx context.Context, address string, certificates *certificateFlags) ([]byte, error) {
	config, err := certificates.config()
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("the address is not a URL") // which the error would quote, with a password
	}
	c := http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSClientConfig: config},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       30 * time.Second,
	}
	response, err := c.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", client.ErrNoAnswer, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		err := fmt.Errorf("%s answers %s", request.URL.Redacted(), response.Status)
		return nil, &terminal.ExitError{Code: terminal.ExitStatus(response.StatusCode), Err: err}
	}
	return io.ReadAll(io.LimitReader(response.Body, maxProof))
}

// verified is a proof that is genuine.
type verified[T any] struct {
	KeyID     string `json:"key_id"`
	Keys      string `json:"keys"` // where the key is from
	Statement T      `json:"statement"`
}

// write says that it is genuine, and then what rows has to say. What is empty is left out.
func (v verified[T]) write(w io.Writer, what, id string, rows func(row func(name, value string))) error {
	fmt.Fprintf(w, "The proof is genuine: nothing was changed since it was signed.\n\n")
	t := terminal.NewTable(w, what, id)
	rows(func(name, value string) {
		if value != "" {
			t.Row(name, value)
		}
	})
	t.Row("Signed by", v.KeyID+" of "+v.Keys)
	return t.Flush()
}

// provenJob says what, who, when and how many.
func provenJob(s proof.Statement) func(row func(name, value string)) {
	return func(row func(name, value string)) {
		row("State", string(s.State))
		row("Instances", strconv.Itoa(s.Total)+": "+countsInWords(client.Counts(s.Counts)))
		row("List", "sha256 "+s.List)
		row("Tenant", s.Tenant)
		row("Asked for", strings.TrimSpace(terminal.Clock(s.CreatedAt.Time)+" "+requesterInWords(s.RequestedBy)))
		row("Request ID", s.RequestID)
		row("Reason", s.Reason)
		row("Finished", terminal.Clock(s.FinishedAt.Time))
		row("Issued", issuedInWords(s.IssuedAt, s.Issuer))
	}
}

// provenRun says who approved it, too, and how it went on.
func provenRun(s proof.RunStatement) func(row func(name, value string)) {
	return func(row func(name, value string)) {
		row("Name", s.Name)
		row("State", string(s.State))
		row("Instances", strconv.Itoa(s.Total)+": "+countsInWords(client.Counts(s.Counts)))
		row("List", "sha256 "+s.List)
		row("Tenant", s.Tenant)
		row("Asked for", terminal.Clock(s.CreatedAt.Time)+" "+requesterInWords(s.RequestedBy))
		row("Request ID", s.RequestID)
		row("Reason", s.Reason)
		approvalRows(row, provenApproval(s.Approval))
		o := s.Options
		row("Options", runOptionsInWords(client.Run{
			MaxParallel: o.MaxParallel, Canary: o.Canary, Soak: o.Soak, Growth: o.Growth, MaxFailures: client.Budget(o.MaxFailures),
		}))
		for _, r := range s.Retries {
			row("Retried", "what was "+tasks.InWords(r.States))
		}
		row("Finished", terminal.Clock(s.FinishedAt.Time))
		row("Issued", issuedInWords(s.IssuedAt, s.Issuer))
	}
}

func provenApproval(proven *proof.Approval) (a client.Approval) {
	if proven == nil {
		return a
	}
	a.Approvers, a.ExpiresAt = proven.Approvers, proven.ExpiresAt.Time
	for _, d := range proven.Decisions {
		a.Decisions = append(a.Decisions, client.RunDecision{Principal: d.Principal, Decision: string(d.Decision), Comment: d.Comment, At: d.At.Time})
	}
	return a
}

func issuedInWords(at tasks.Time, by proof.Issuer) string {
	return terminal.Clock(at.Time) + " by " + by.Service + " " + by.Version
}

func requesterInWords(r proof.Requester) string {
	who := tasks.AuditEntry{By: r.By, Principal: r.Principal}.Who()
	switch {
	case r.By == "":
		return "" // an older version kept nobody
	case r.From == "":
		return "by " + who
	}
	return "by " + who + " from " + r.From
}
