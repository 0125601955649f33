package call

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
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
		Long: `Checks that a proof is just as the service has signed it, and that it does not
contradict itself: the list's hash is made anew, and its counts are those of its items.
Any byte that was changed is found. FILE may be - for standard input.

The keys are those of --keys: a file, or the URL of a set. Without it the server is
asked. Save the set (/v1/proof-keys) while you trust the server: with the file, a proof can
be checked without a network, and when the service is long gone.

The exit code is 0 if the proof is genuine, whatever became of the job, and 2 if it does
not verify. --output json prints all that it says, jsonl and csv have a row for each
instance.`,
		Example: `  curl -s https://reset.example/v1/proof-keys > keys.json
  batchreset proof verify job.jws --keys keys.json
  batchreset proof verify job.jws --keys keys.json --output json | jq .statement.items`,
		Args:              terminal.ArgsFromUsage,
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readProof(std.In, args[0])
			if err != nil {
				return err
			}
			if keys == "" {
				if keys, err = flags.keysURL(); err != nil {
					return err
				}
			}
			set, err := readKeys(cmd.Context(), keys)
			if err != nil {
				return fmt.Errorf("--keys: %w", err)
			}
			v := verified{Keys: redacted(keys)}
			if v.Statement, v.KeyID, err = set.Verify(text); err != nil {
				return terminal.WithCode(terminal.ExitSome, fmt.Errorf("the proof does not verify: %w", err))
			}
			return flags.output.Show(std.Out, terminal.View{
				Document: v, Rows: terminal.Each(v.Statement.Items), Columns: provenColumns, Text: v.write,
			})
		},
	}
	flags.define(cmd.Flags(), std)
	cmd.Flags().StringVar(&keys, "keys", "", "the service's keys: a `file`, or a URL (default: /v1/proof-keys of the server)")
	return cmd
}

// provenColumns are those of a statement's items.
var provenColumns = []string{"instance_id", "item_id", "state", "attempts", "error_code", "evidence", "driver", "started_at", "finished_at"}

// readProof reads a proof from a file, or from standard input. A line end after it is ours, see
// 'proof JOB'; anything else is a part of it.
func readProof(in io.Reader, name string) (string, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxProof+1))
	if len(text) > maxProof {
		err = fmt.Errorf("%s is longer than %d bytes, and is no proof", name, maxProof)
	}
	return strings.TrimSuffix(string(text), "\n"), err
}

// keysURL is where the server of the flags, or of the context, has its keys. Nobody needs a token
// for them.
func (f *callerFlags) keysURL() (string, error) {
	kept, err := f.kept(savedContext{Server: f.server, Token: "not needed"})
	return cmp.Or(strings.TrimRight(f.server, "/"), kept.Server, defaultServer) + "/v1/proof-keys", err
}

func readKeys(ctx context.Context, where string) (keys proof.Keys, err error) {
	var text []byte
	if strings.HasPrefix(where, "http://") || strings.HasPrefix(where, "https://") {
		text, err = fetch(ctx, where)
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
func fetch(ctx context.Context, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("the address is not a URL") // which the error would quote, with a password
	}
	c := http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
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
type verified struct {
	KeyID     string          `json:"key_id"`
	Keys      string          `json:"keys"` // where the key is from
	Statement proof.Statement `json:"statement"`
}

// write says what, who, when and how many.
func (v verified) write(w io.Writer) error {
	s := v.Statement
	fmt.Fprintf(w, "The proof is genuine: nothing was changed since it was signed.\n\n")
	t := terminal.NewTable(w, "Job", s.JobID)
	t.Row("State", string(s.State))
	t.Row("Instances", strconv.Itoa(s.Total)+": "+countsInWords(client.Counts(s.Counts)))
	t.Row("List", "sha256 "+s.List)
	t.Row("Tenant", s.Tenant)
	t.Row("Asked for", strings.TrimSpace(terminal.Clock(s.CreatedAt.Time)+" "+requesterInWords(s.RequestedBy)))
	t.Row("Request ID", s.RequestID)
	if s.Reason != "" {
		t.Row("Reason", s.Reason)
	}
	t.Row("Finished", terminal.Clock(s.FinishedAt.Time))
	t.Row("Issued", terminal.Clock(s.IssuedAt.Time)+" by "+s.Issuer.Service+" "+s.Issuer.Version)
	t.Row("Signed by", v.KeyID+" of "+v.Keys)
	return t.Flush()
}

func requesterInWords(r proof.Requester) string {
	switch {
	case r.By == "":
		return "" // an older version kept nobody
	case r.From == "":
		return "by " + r.By
	}
	return "by " + r.By + " from " + r.From
}
