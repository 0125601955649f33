// Package webhook sends notices over HTTP as the Standard Webhooks specification has it
// (https://www.standardwebhooks.com): a POST of JSON, signed with HMAC-SHA256.
//
// The URLs come from tenants, and the requests leave from inside the operator's network.
// So unless the operator allows it nothing is sent to an address that is not on the public
// Internet. It is checked on the address that is dialled, after the name was resolved,
// whatever the URL said when it was added. Redirects are not followed and proxies
// not used.
package webhook
