// Package tasks is the vocabulary of the service: job, item, their states, the
// rules for a batch, the task that carries an item to the workers, what webhook
// endpoints are told, and the error codes. It imports only the standard library, so
// that both sides of the queue can use it.
//
// # Words
//
// A job is one accepted batch. An item is one instance within a job. A delivery
// is one handing-over of an item to the workers (one asynq task). An attempt is
// one try at resetting an item, begun in the record. A notice is one event, such as
// the end of a job, on its way to one webhook endpoint.
//
// # The state machine of an item
//
//	             begin                  succeed
//	pending ───────────────▶ running ───────────────▶ succeeded
//	   │  ▲                  │  ▲  │ fail
//	   │  │ reopen     retry │  │  ├──────────────────▶ failed
//	   │  │ (from failed,    ▼  │  │ lose track
//	   │  │ unknown or     retrying└──────────────────▶ unknown
//	   │  │ cancelled)       │ begin
//	   │                     │
//	   ├─────────────────────┤ cancel ───────────────▶ cancelled
//	   └─────────────────────┘ fail   ───────────────▶ failed
//	                           lose track (retrying) ─▶ unknown
//
// A running item that is begun again was lost by its worker: it stays running,
// under a new attempt. The model test of package redisdb has this drawing as a table.
//
// # The state of a job
//
// It is never stored: [Counts.State] folds it from the counts of the item
// states, so that the two cannot disagree.
package tasks
