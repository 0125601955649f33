package api

import _ "embed"

// openAPI is the written contract. Every answer that a test of this package sees is
// checked against it.
//
//go:embed openapi.yaml
var openAPI []byte
