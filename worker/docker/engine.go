package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"batchreset/worker"
)

// Limits of what is taken from an engine, in bytes.
const (
	maxAnswer  = 4 << 20 // of a list of some two thousand containers
	maxOutput  = 4 << 10 // of a program
	maxMessage = 512
)

// engine is one Docker engine, spoken to in the version of its API that it has itself.
type engine struct {
	client *http.Client
	base   string // of all paths
}

// call is one call of an engine.
type call struct {
	what   string // for errors: "the start of the phone"
	method string // GET if empty
	path   string
	query  url.Values
	body   any // as JSON, if not nil
}

// engineError is a call that came to nothing, or of which nobody knows.
type engineError struct {
	call    string
	status  int    // of the answer; 0: there was none
	message string // the engine's own
	err     error
}

func (e *engineError) Error() string {
	switch {
	case e.err != nil:
		return fmt.Sprintf("%s: %v", e.call, e.err)
	case e.status == 0:
		return fmt.Sprintf("%s: %s", e.call, e.message)
	}
	return fmt.Sprintf("%s: the engine answers %d: %s", e.call, e.status, e.message)
}

func (e *engineError) Unwrap() error { return e.err }

// answered says whether the engine refused a call with this status.
func answered(err error, status int) bool {
	e, ok := errors.AsType[*engineError](err)
	return ok && e.err == nil && e.status == status
}

// refused says whether the engine refused a call, with whatever status.
func refused(err error) bool {
	e, ok := errors.AsType[*engineError](err)
	return ok && e.err == nil && e.status != 0
}

// call makes a call and reads its answer into a value, or drops it if that is nil.
func (e engine) call(ctx context.Context, c call, into any) error {
	response, err := e.send(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(into); err != nil {
		return notUnderstood(c.what, response, err)
	}
	return nil
}

// notUnderstood is a good answer that nobody can read.
func notUnderstood(what string, response *http.Response, err error) error {
	return &engineError{call: what, status: response.StatusCode, err: fmt.Errorf("the answer is not understood: %w", err)}
}

// send makes a call and returns its answer if that is a good one, with the body still to be read.
func (e engine) send(ctx context.Context, c call) (*http.Response, error) {
	var body io.Reader
	if c.body != nil {
		text, err := json.Marshal(c.body)
		if err != nil {
			return nil, &engineError{call: c.what, err: err}
		}
		body = bytes.NewReader(text)
	}
	// The address is for the Host header alone; the transport knows the way.
	address := url.URL{Scheme: "http", Host: "docker", Path: e.base + c.path, RawQuery: c.query.Encode()}
	request, err := http.NewRequestWithContext(ctx, c.method, address.String(), body)
	if err != nil {
		return nil, &engineError{call: c.what, err: err}
	}
	request.Header.Set("User-Agent", "batchreset")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := e.client.Do(request)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err // the address in it is no real one
		}
		return nil, &engineError{call: c.what, err: err}
	}
	// 304: what is to be started or stopped is so already.
	if status := response.StatusCode; status/100 == 2 || status == http.StatusNotModified {
		return response, nil
	}
	return nil, refusal(c.what, response)
}

// refusal reads the engine's reason.
func refusal(what string, response *http.Response) error {
	defer func() { _ = response.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxOutput)) // a part is better than nothing
	var said struct{ Message string }
	if json.Unmarshal(text, &said) != nil || said.Message == "" {
		said.Message = string(text)
	}
	return &engineError{call: what, status: response.StatusCode, message: worker.Printable(said.Message, maxMessage)}
}
