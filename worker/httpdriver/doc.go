// Package httpdriver resets instances through any control plane that speaks HTTP.
//
// It POSTs {"instance_id","item_id","attempt"} to a URL made from a template, with
// the driver key as Idempotency-Key and a bearer token. What the answer means:
//
//	2xx                     done, unless the body has an error_code other than "0"
//	202 with a location     polled until done; the poll URL is the checkpoint
//	202 without one         unknown: accepted, and no way to follow it
//	408, 425, 429, 5xx      failed, retry; Retry-After is honoured
//	409                     the instance is busy
//	3xx, other 4xx          permanent; redirects are not followed
//	no connection           nothing was sent
//	anything else           unknown: it may have been sent; repeated only if the
//	                        control plane honours the key
//
// # No hidden calls
//
// net/http sends a request again by itself when a reused connection turns out to
// be dead and the request has an Idempotency-Key. That would be a call that the
// record does not know of, so every POST has a connection of its own, and none is
// followed to another place. Proxies are not used.
//
// # The last look at the clock
//
// A process can be frozen anywhere and thawed past the attempt's deadline, when
// its instance may be another's. The deadline is therefore looked at inside the
// write of the first byte of the request. What remains is the time between that
// look and the kernel's taking of the bytes: a few instructions in one goroutine.
package httpdriver
