// Package webhook tells tenants' endpoints what has happened to their jobs. A [Dispatcher] takes
// notices from their queue and decides when a failed one is sent again; a [Sender] sends each
// over HTTP as the Standard Webhooks specification has it (https://www.standardwebhooks.com): a
// POST of JSON, signed with HMAC-SHA256.
//
// The URLs come from tenants, and the requests leave from inside the operator's network.
// So unless the operator allows it nothing is sent to an address that is not on the public
// Internet. It is checked on the address that is dialled, after the name was resolved,
// whatever the URL said when it was added. Redirects are not followed and proxies
// not used.
package webhook
