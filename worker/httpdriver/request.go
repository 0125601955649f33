package httpdriver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"text/template"

	"batchreset/worker"
)

// maxBody is how many bytes the body of a request may have: far more than an attempt can fill in.
const maxBody = 4 << 20

// defaultBody is what a control plane gets that needs no other.
const defaultBody = `{"instance_id":{{json .InstanceID}},"item_id":{{json .ItemID}},"attempt":{{.Attempt}}}`

// bodyData is what a template of a body may use.
type bodyData struct {
	InstanceID, Address, ItemID, Key string
	Attempt                          int
	Labels                           map[string]string
}

// newBody reads a template of a body, and tries it out.
func newBody(text string) (*template.Template, error) {
	if text == "" {
		text = defaultBody
	}
	t, err := template.New("body").Option("missingkey=zero").Funcs(template.FuncMap{"json": asJSON}).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("is not a template: %w", err)
	}
	// With what breaks a value that is written without the function json.
	sample := bodyData{InstanceID: `p"1`, Address: `a"1`, ItemID: `i"1`, Key: `k"1`, Attempt: 1}
	if _, err := fill(t, sample); err != nil {
		return nil, err
	}
	return t, nil
}

func asJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

func (d *Driver) bodyFor(a worker.Attempt) ([]byte, error) {
	return fill(d.body, bodyData{a.InstanceID, a.Address, a.ItemID, a.Key, a.Number, a.Labels})
}

func fill(t *template.Template, data bodyData) ([]byte, error) {
	var body bytes.Buffer
	if err := t.Execute(&body, data); err != nil {
		return nil, fmt.Errorf("cannot be filled in: %w", err)
	}
	switch {
	case body.Len() > maxBody:
		return nil, fmt.Errorf("is longer than %d bytes", maxBody)
	case !json.Valid(body.Bytes()):
		return nil, errors.New("is not JSON once it is filled in; the function json writes a value with its quotes")
	}
	return body.Bytes(), nil
}
