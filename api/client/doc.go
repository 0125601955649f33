// Package client speaks the HTTP contract of the batch reset service.
//
// Reading is repeated by itself where that can help. A submit is repeated only
// after the server said 429: whenever else no clear answer comes back, the batch
// may have been accepted, and sending it again could wipe a phone twice. Such an
// error has [ErrUncertain] in its chain.
package client
