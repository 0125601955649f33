package api

import "time"

// SetSendTimeout is how long a reader may take to make room for an event.
func (a *API) SetSendTimeout(d time.Duration) { a.server.sendTimeout = d }
