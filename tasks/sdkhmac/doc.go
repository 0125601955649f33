// Package sdkhmac signs HTTP requests with Huawei Cloud's SDK-HMAC-SHA256, and verifies such
// signatures. The official SDKs sign every request this way with an access key and its secret;
// so do we when we call Huawei Cloud.
//
// A signature is an HMAC with SHA-256, keyed with the secret as it is, over
//
//	SDK-HMAC-SHA256
//	X-Sdk-Date, such as 20060102T150405Z
//	SHA-256 of the canonical request
//
// and the canonical request is
//
//	method
//	path: each segment percent-encoded, with a slash at the end
//	query: name=value, encoded, sorted, joined by &
//	name:value of each signed header, and an empty line
//	names of the signed headers: lower case, sorted, joined by ;
//	SHA-256 of the body
//
// Every hash is in lower-case hexadecimal. The signature travels as
//
//	Authorization: SDK-HMAC-SHA256 Access=KEY, SignedHeaders=host;x-sdk-date, Signature=HEX
//
// # What is verified
//
// Which headers are signed differs: the SDK for Go leaves out Host, the one for Node.js signs
// Content-Type, those for Java and Python sign Host and X-Sdk-Date. So [Signature.Verify] takes
// exactly the headers that the request lists, and demands only X-Sdk-Date. A proxy that changes
// one of them on the way, often Host, User-Agent or Content-Type, breaks the signature.
//
// The body is always covered. A request may bring its hash in X-Sdk-Content-Sha256, which must
// then be right; the value UNSIGNED-PAYLOAD, which the SDKs send for bodies that are not JSON, is
// accepted only without a body.
//
// # What is not
//
// A signature can be replayed for as long as its date is accepted. Who acts on signed requests
// must remember [Signature.MAC] for that long. Other algorithms of the SDKs (V11-HMAC-SHA256 with
// a derived key, SM3, ECDSA) are refused by name.
//
// The format is that of the SDKs' sources; the tests have the test vectors of the SDKs for Java,
// Python and Go.
package sdkhmac
