package api

import (
	"encoding/json"
	"net/http"

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
