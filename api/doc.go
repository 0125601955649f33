// Package api is the HTTP contract: the KooPhone routes and our own, over the
// record store. A handler decodes, calls the store once, encodes; it returns its
// error, and errors.go alone says which status goes with which code.
package api
