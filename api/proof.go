package api

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
	"batchreset/tasks/proof"
)

// Media types of answers that have no envelope, so that any JOSE library can read them.
const (
	typeJOSE   = "application/jose"
	typeKeySet = "application/jwk-set+json"
)

// proofKeysPath needs no token: whoever has a proof may check it.
const proofKeysPath = "/v1/proof-keys"

func noProofs() error {
	return tasks.Errorf(tasks.NoRoute, "this service signs no proofs: its operators have not given it a key (--proof-key-file)")
}

// proofKeys answers the keys that proofs are signed with.
func proofKeys(signer *proof.Signer) echo.HandlerFunc {
	if signer == nil {
		return func(echo.Context) error { return noProofs() }
	}
	set, err := json.Marshal(signer.Keys())
	if err != nil {
		panic(err) // it is text
	}
	return asset{contentType: typeKeySet, content: append(set, '\n')}.handler()
}

// proof answers what became of a final job, signed: in compact form, or as a page for those who
// ask for one.
func (s *server) proof(c echo.Context) error {
	job, err := s.find(c, s.store.Job)
	switch {
	case err != nil:
		return err
	case s.cfg.Proofs == nil:
		return noProofs()
	case !job.State.Final():
		return tasks.Errorf(tasks.JobFinal, "the job has not ended: there is nothing to prove yet")
	}
	statement := proof.Of(job, s.cfg.Version, tasks.Time{Time: s.store.Now()})
	compact, err := s.cfg.Proofs.Sign(statement)
	if err != nil {
		return err
	}
	c.Response().Header().Add(echo.HeaderVary, echo.HeaderAccept)
	accept := c.Request().Header.Values(echo.HeaderAccept)
	if weight(accept, "text/html") > weight(accept, typeJOSE) {
		return answerCertificate(c, certificateOf(statement, compact, proof.KeyID(s.cfg.Proofs.Keys()[0])))
	}
	return c.Blob(http.StatusOK, typeJOSE, []byte(compact))
}

// runProof streams what became of each instance of a run that has ended, signed. There is no page of
// it: nobody prints 100,000 lines.
func (s *server) runProof(c echo.Context) error {
	run, err := s.findRun(c, s.cfg.Runs.Run)
	switch {
	case err != nil:
		return err
	case s.cfg.Proofs == nil:
		return noProofs()
	case !run.State.Final():
		return tasks.Errorf(tasks.JobFinal, "the run has not ended: there is nothing to prove yet")
	}
	ctx, cancel := patient(c)
	defer cancel()
	out := newRows(c, typeLines, s.sendTimeout)
	statement := proof.OfRun(run, s.cfg.Version, tasks.Time{Time: s.store.Now()})
	if err := s.cfg.Proofs.WriteRun(out, statement, func(visit func(tasks.RunInstance) error) error {
		if err := s.cfg.Runs.Instances(ctx, run, visit); err != nil {
			return err
		}
		return s.sameRun(ctx, run)
	}); err != nil {
		return err
	}
	return out.end()
}

// sameRun fails unless the record of a run that has ended is still the one that was read: a proof must
// not mix two rounds.
func (s *server) sameRun(ctx context.Context, run tasks.Run) error {
	now, err := s.cfg.Runs.Stored(ctx, run.ID)
	switch {
	case errors.Is(err, tasks.RunGone):
		return noRun(run.ID)
	case err != nil:
		return err
	case now.Revision != run.Revision || !now.CreatedAt.Equal(run.CreatedAt.Time):
		return tasks.Errorf(tasks.JobFinal, "somebody has just retried the run: there is nothing to prove yet")
	}
	return nil
}

// certificate is what the page of a proof shows, to be printed and filled in: the fields of the
// sample certificate of NIST SP 800-88 Rev. 1, appendix G.
type certificate struct {
	proof.Statement

	Done, NotDone []proof.Item
	// Seen is how many of Done have evidence.
	Seen    int
	KeyID   string
	Compact string
}

func certificateOf(s proof.Statement, compact, keyID string) certificate {
	page := certificate{Statement: s, KeyID: keyID, Compact: compact}
	for _, it := range s.Items {
		if it.State != tasks.ItemSucceeded {
			page.NotDone = append(page.NotDone, it)
			continue
		}
		page.Done = append(page.Done, it)
		if it.Evidence != "" {
			page.Seen++
		}
	}
	return page
}

//go:embed certificate.html
var certificateText string

// What callers and drivers say is made visible: a line that is printed must not look like another
// one.
var certificatePage = template.Must(template.New("").Funcs(template.FuncMap{
	"visible": func(text any) string { return tasks.Visible(fmt.Sprint(text)) },
	"clock": func(t tasks.Time) string {
		if t.IsZero() {
			return "–"
		}
		return t.UTC().Format("2006-01-02 15:04:05 UTC")
	},
	"pairs": func(labels map[string]string) string {
		var all []string
		for _, name := range slices.Sorted(maps.Keys(labels)) {
			all = append(all, name+"="+labels[name])
		}
		return strings.Join(all, ", ")
	},
}).Parse(certificateText))

// certificatePolicy lets the page load nothing: its style is in it, and it has no script.
const certificatePolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func answerCertificate(c echo.Context, page certificate) error {
	var b bytes.Buffer
	if err := certificatePage.Execute(&b, page); err != nil {
		return err
	}
	h := c.Response().Header()
	h.Set(echo.HeaderXContentTypeOptions, "nosniff")
	h.Set(echo.HeaderContentSecurityPolicy, certificatePolicy)
	h.Set(echo.HeaderReferrerPolicy, "no-referrer")
	return c.Blob(http.StatusOK, echo.MIMETextHTMLCharsetUTF8, b.Bytes())
}
