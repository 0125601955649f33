// Package client speaks the HTTP contract of the batch reset service.
//
// Reading is repeated by itself where that can help. A submit is sent again only under
// its idempotency key, which makes it the same job: after a 429, and after an answer that
// was lost. When no clear answer comes back all the same, the batch may have been
// accepted, and sending it under another key could wipe a phone twice. Such an error has
// [ErrUncertain] in its chain. A cancel and a retry, which have no key, are sent once.
//
// What the server refuses is an [*Error], with the code that the contract documents.
// [ErrNoAnswer] is in the chain where it said nothing.
package client
