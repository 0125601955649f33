// Package client speaks the HTTP API of the batch reset service. It needs nothing but the
// standard library.
//
// The module's path is batchreset, which Go cannot fetch by itself. To use the package in
// another module, have a checkout of the service beside it, and say where it is:
//
//	go mod edit -require batchreset@v0.0.0 -replace batchreset=../batchreset
//
// # What is repeated
//
// Requests that only read are repeated by themselves where that can help. A submit is sent
// again only under its idempotency key, so that it stays one job: after a 429, and after an
// answer that was lost. If no clear answer comes back all the same, the batch may have been
// accepted, and sending it under another key could reset a phone twice. Such an error has
// [ErrUncertain] in its chain. A cancel, a retry and the brakes of a run, which have no key, are sent
// once; so is what asks for the rows of a run's results.
//
// # Errors
//
// What the server refuses is an [*Error], with the code of the API. [ErrNoAnswer] is in the
// chain if the server did not answer.
package client
