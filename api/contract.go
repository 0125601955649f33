package api

import (
	"bytes"
	_ "embed"
)

// openAPI is the written contract. Every answer that a test of this package sees is
// checked against it.
//
//go:embed openapi.yaml
var openAPI []byte

// contractAt is the contract of a service that callers find below a path.
func contractAt(basePath string) []byte {
	if basePath == "" {
		return openAPI
	}
	return bytes.Replace(openAPI, []byte("servers:\n  - url: /\n"), []byte("servers:\n  - url: "+basePath+"\n"), 1)
}
