package httpdriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"batchreset/worker"
)

// Looking is a [Driver] with a LookURL: a [worker.Looker].
type Looking struct{ *Driver }

// Look GETs the look URL of the instance. Only a 200 with a JSON object whose "initial" is true or
// false, and that has nothing else but "evidence", is understood; everything else is an error.
func (d Looking) Look(ctx context.Context, a worker.Attempt) (worker.Sight, error) {
	where, err := expand(d.cfg.LookURL, a.InstanceID, a.Address)
	if err != nil {
		return worker.Sight{}, fmt.Errorf("the look URL for instance %.80q cannot be used: %w", a.InstanceID, err)
	}
	said, err := d.ask(ctx, where.String())
	if err != nil {
		return worker.Sight{}, errors.New("the control plane could not be asked: " + reason(err))
	}
	return seen(said, where.EscapedPath())
}

// seen reads the answer to a look at a path.
func seen(said answer, path string) (worker.Sight, error) {
	var told struct {
		Initial  *bool          `json:"initial"`
		Evidence jsontext.Value `json:"evidence"`
	}
	switch {
	case said.Status != http.StatusOK:
		return worker.Sight{}, errors.New("the control plane answered the look with " + said.statusText())
	case said.Broken != nil:
		return worker.Sight{}, errors.New("the answer to the look is not whole: " + reason(said.Broken))
	}
	if err := json.Unmarshal(said.Body, &told, json.RejectUnknownMembers(true)); err != nil || told.Initial == nil {
		return worker.Sight{}, errors.New(`the answer to the look is not understood: it must be JSON with "initial": true or false, perhaps "evidence", and nothing else`)
	}
	sight, word := worker.Sight{State: worker.NotInitial}, "not initial"
	if *told.Initial {
		sight.State, word = worker.Initial, "initial"
	}
	sight.Evidence = fmt.Sprintf("GET %s: %s", path, cmp.Or(evidence(told.Evidence), word))
	return sight, nil
}

// evidence is the text of a string, or any other value as it was sent.
func evidence(raw jsontext.Value) string {
	var text string
	if len(raw) == 0 || raw.Kind() == 'n' || json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}
