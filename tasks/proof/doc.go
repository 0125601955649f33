// Package proof says, in a form that can be checked years later and without the service, what
// became of a job or a run: who asked for it, when, for which instances, what each attempt came to, and
// what was seen of each instance afterwards.
//
// A job's proof is a [Statement] as JSON, signed as a JWS in compact form (RFC 7515) with Ed25519
// (RFC 8037). A key's ID is its thumbprint (RFC 7638), so that a key set cannot give a key
// another one's name.
//
// A run's proof is lines of JSON, because a run may have 100,000 instances: a [RunStatement], a
// [RunItem] for each instance, and at last a signature of the same form, over how many lines there
// are before it and their SHA-256. So it is written and read a line at a time, and one signature is
// checked, not 100,000.
//
// # Why no library
//
// go-jose and its like read what they are given as kindly as they can. Base64 has several
// spellings of the same bytes: line ends in between, and bits at the end that count for
// nothing. With such a reader somebody could change a byte of a proof and find it genuine all
// the same. Here there is one algorithm, one header and one spelling, and everything else is
// refused, so any changed byte is found.
//
// # What a proof does not say
//
// It is the service's word: that this is what its record held. Where a driver can look, the
// evidence says what was seen; where it cannot, success is the control plane's word.
package proof
