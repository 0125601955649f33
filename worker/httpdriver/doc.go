// Package httpdriver resets instances through any control plane that speaks HTTP.
//
// It POSTs {"instance_id","item_id","attempt"} to a URL made from a template, with
// the driver key as Idempotency-Key and a bearer token. What the answer means:
//
//	2xx                     done, unless the body has an error_code other than "0"
//	2xx with an error_code  failed, retry: KooPhone tells of errors under 200, and
//	                        nothing says which of them are for good
//	202 with a location     polled until done; the poll URL is the checkpoint
//	202 without one         unknown: accepted, and no way to follow it
//	408, 425, 429, 5xx      failed, retry; Retry-After is honoured
//	409                     the instance is busy; Retry-After is honoured
//	3xx, other 4xx          permanent; redirects are not followed
//	no connection           unreachable: nothing was sent
//	anything else           unknown: it may have been sent; repeated only if the
//	                        control plane honours the key
//
// And what a poll's answer means:
//
//	2xx without a status    done
//	2xx with a status       done, failed (retry) or running, as it says
//	202                     running
//	303                     done: it leads to the result
//	408, 425, 429, 5xx      nothing; asked again, like after a lost connection
//	anything else           unknown: the trail is lost
//
// A poll that runs out of time is unknown too, but the next attempt goes on
// polling, without another reset, if the checkpoint was saved. Polls go only to
// the scheme and host of the template: the bearer token is not for others.
//
// # No hidden calls
//
// net/http sends a request again by itself when a reused connection turns out to
// be dead and the request can be replayed, which for it means also any POST with
// an Idempotency-Key. That would be a call that the record does not know of. So
// every POST has a connection of its own, which is never retried, and a body that
// cannot be rewound; and none is followed to another place.
//
// # The last look before sending
//
// A process can be frozen anywhere and thawed when the attempt's time is over, or
// when its item has been given to another worker, and its instance may be another
// item's. [worker.Attempt.MaySend] is therefore asked inside each write of the request
// to its connection, after dialing and handshakes. What remains is the time between
// that look and the kernel's taking of the bytes: a system call, microseconds unless
// the process is frozen right there. Bytes that the kernel, a proxy or the network
// holds back are beyond anybody's reach.
//
// A worker that runs and is cut off from Redis does not stand still. asynq ends its
// attempts when it has not reached Redis for 30 s, up to 5 s after another worker may
// have taken them over. A driver that has waited for all of that time to send, for
// --driver-rate or for a connection, could send in those 5 s.
package httpdriver
