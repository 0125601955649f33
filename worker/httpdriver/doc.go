// Package httpdriver resets instances through any control plane that speaks HTTP.
//
// It POSTs {"instance_id","item_id","attempt"} to a URL made from a template, with
// the driver key as Idempotency-Key and a bearer token. What the answer means:
//
//	200, 201, 204, empty    done
//	200, 201 with JSON      done, if every state it has is a word for done, it has no
//	                        error, and its error_code, if any, is "0"
//	2xx that says failed    failed, retry; so is one with another error_code, because
//	                        KooPhone tells of errors under 200, and nothing says which
//	                        of them are for good
//	202 with a location     polled until it says done or failed; the poll URL is the
//	                        checkpoint
//	any other 2xx           in doubt: not JSON, cut off, longer than 1 MiB, a word that
//	                        is not known, a word for running, states that contradict
//	                        each other, 202 without a location
//	409                     the instance is busy; Retry-After is honoured
//	401                     the control plane refuses us: counts as unreachable
//	408, 425, 429           not done, retry; Retry-After is honoured
//	503 with Retry-After    not done, retry, if the header can be read
//	other 5xx               in doubt, because a gateway may answer for a control plane
//	                        that is still at work; not done, if [Config.Definite] lists it
//	3xx, other 4xx          permanent; redirects are not followed
//	no connection           unreachable: nothing was sent
//	anything else           in doubt: it may have been sent
//
// What is in doubt is unknown, or repeated if the control plane honours the key. The
// repeat's refusal says nothing about the first call; that it is done or has failed does.
//
// And what a poll's answer means:
//
//	200 or 201 that says done   done
//	2xx that says failed        failed, retry
//	303                         done: it leads to the result
//	anything else               asked again, until the attempt's time is over: an answer
//	                            without a state, a lost connection, a gateway's page, and
//	                            404 and 401 too, which say nothing about the reset
//
// A poll that runs out of time is unknown, but the next attempt goes on polling, without
// another reset, if the checkpoint was saved. Polls go only to the scheme and host of the
// template: the bearer token is not for others.
//
// # Looking
//
// With [Config.LookURL] the driver is [Looking]: a GET of that URL says whether an instance is in its
// initial state, as {"initial":true|false,"evidence":…}. Evidence is text, or any other JSON.
// An answer that is not a 200, not JSON, cut off, without initial, or with other fields says nothing.
// While a reset is under way or waits for its turn, initial must be false: where the answer to a
// POST was lost, true ends the doubt, also if the instance was not used since an earlier wipe.
//
// # Words
//
// These words are known, as text or number, in any case, with or without _, - and spaces:
//
//	done     succeeded success successful ok 2
//	         done completed complete finished (failed, if there is an error beside them)
//	running  running pending queued accepted scheduled submitted waiting notstarted
//	         starting started initializing preparing processing executing inprogress
//	         ongoing creating updating provisioning resetting restarting canceling
//	         cancelling 1
//	failed   failed failure fail error errored canceled cancelled aborted rejected -1
//
// [Config.Words] adds to them. They are looked for in fields called status, state, phase,
// provisioningState, lifecycleState, jobStatus, taskStatus, operationStatus (or …State),
// conclusion, outcome and result, whatever their case; done, completed, complete and
// finished may also be true or false. Such a field may be
//
//   - at the top, or in an object there;
//   - in an object called data, or in an object there;
//   - in the objects of a list in these places: always in those of jobs and cmd_jobs, each of
//     which must have a state, and in those of other lists if there is no state elsewhere.
//
// All that are found must agree. This is how Google's operations (AIP-151), Azure's,
// Kubernetes, KooPhone and CPH tell. An error is a field error or errors that is not empty,
// or success, succeeded or ok that is false.
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
// item's. [worker.Attempt.MaySend] is therefore asked when the connection is there and the
// request's first byte is about to leave, after dialing and handshakes, and only once: it
// goes to Redis. If the attempt's time ends while it is asked, nothing is sent. What remains
// is the time between its answer and the kernel's taking of the bytes: a system call,
// microseconds unless the process is frozen right there. Bytes that the kernel, a proxy or
// the network holds back are beyond anybody's reach.
package httpdriver
