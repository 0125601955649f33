// Package registry keeps what people decide: tokens, operators, the fleet, webhook endpoints,
// policies with the quotas that follow from them, and the audit trail of it all.
//
// Methods that change something take the tasks.Actor who does it. They check first, then
// write the entry of the audit trail, then act: see Audit.Decide.
//
// Keys:
//
//	reset:token:{<sha256>}    tenant, scopes, expiry of a token
//	reset:tokens              index of the tokens
//	reset:ticket-key          what tickets for streams are sealed with
//	reset:operators           who may log in to the operators' site
//	reset:first:{reset:operators}  links that make the first of them, in the same slot
//	reset:session:{<sha256>}  who has logged in, or has given the first half of a log-in
//	reset:session:{people}    last log-ins by name; beside it, in the same slot,
//	  :last their names by time, :of:<name> sessions, :used:<name> what was used of a second factor
//	reset:fleet:{<instance>}  owner and protection
//	reset:fleet               index of the fleet
//	reset:form:{<id>}         there once the form of the site was sent that makes a secret, for a week
//	reset:webhook:{<tenant>}       IDs of a tenant's webhook endpoints
//	reset:webhook:{<tenant>}:<id>  an endpoint: URL, events, secrets, state
//	reset:webhooks            index of the endpoints: their tenants
//	reset:policies            halts and limits, of tenants and of all of them
//	reset:accepted:{<tenant>} instances accepted in the last hour, by minute
//	reset:direct:{<tenant>}   the same of those that belong to no run
//	reset:begun:{<tenant>}    resets begun in the last hour, by minute
//	reset:held:{<tenant>}     open instances, by job
//	reset:pace:{<tenant>}     when the next request is due, if there is a rate
//	reset:audit               stream of decisions, see tasks.AuditEntry
package registry
