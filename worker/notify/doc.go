// Package notify tells operators of what needs them: a run that is paused or waits for approval, a halt that was forgotten, a
// driver that nobody serves, a control plane that cannot be reached, a Redis that is full, a webhook endpoint that is disabled.
// Each is told once when it begins, again every four hours while it lasts, and once when it ends. Any number of processes may
// have a [Notifier]: one at a time tells, and Redis has what was told.
//
// The URLs come from who starts the process, not from tenants: an address inside the network is allowed, and http is. A URL
// often is a secret, so nothing of it but its host is logged.
package notify
