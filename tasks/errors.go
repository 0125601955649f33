package tasks

import (
	"errors"
	"fmt"
	"time"
)

// Code is an error code as it stands on the wire: in the envelope of an answer,
// or with an item of a job. RESET.* codes are ours, the others are KooPhone's
// and its gateway's.
type Code string

// Codes of answers. Package api says which HTTP status goes with each.
const (
	OK              Code = "0"
	BadRequest      Code = "KOOPHONE.API.1000" // the request is not well formed; the message names the field
	NotYourInstance Code = "KOOPHONE.API.1001" // an instance is unknown or another tenant's
	Internal        Code = "KOOPHONE.API.9999" // our fault, or Redis is away
	NoRoute         Code = "APIGW.0101"
	TooLarge        Code = "APIGW.0201"
	BadToken        Code = "APIGW.0301" // missing or not valid
	Forbidden       Code = "APIGW.0302" // the token's scope does not allow this
	TokenExpired    Code = "APIGW.0307" // expired or revoked
	TooManyRequests Code = "APIGW.0308"
	IAMAway         Code = "APIGW.0613" // the service that knows the caller's token cannot be asked
	NoJob           Code = "RESET.0001" // no such job, or another tenant's
	KeyReused       Code = "RESET.0002" // Idempotency-Key with another request
	JobFinal        Code = "RESET.0003" // nothing to cancel or to retry
	Protected       Code = "RESET.0004" // a listed instance is protected
	OwnRun          Code = "RESET.0005" // somebody else must approve it
	StorageFull     Code = "RESET.0006" // Redis is nearly full: no new work
)

// Codes of items, used where the upstream gave none of its own.
const (
	TimedOut        Code = "RESET.1001" // outcome unknown
	WorkerLost      Code = "RESET.1002" // outcome unknown
	Cancelled       Code = "RESET.1003"
	BusyTooLong     Code = "RESET.1004"
	Stopped         Code = "RESET.1005" // after too many failures in the job
	NoLongerAllowed Code = "RESET.1006" // protected, or no longer the tenant's
	ResetFailed     Code = "RESET.1007" // the upstream gave no code
	NotInTime       Code = "RESET.1008"
	NotUnderstood   Code = "RESET.1009" // the upstream's answer; outcome unknown
	NotConfirmed    Code = "RESET.1010" // done by the upstream's answer, but a look does not show it
)

// Error is a failure with a code for programs and a sentence for people. A
// failure without one is internal: its text goes to the log, never to a caller.
type Error struct {
	Code    Code
	Message string
	// RetryAfter is when it makes sense to ask again; zero when unknown.
	RetryAfter time.Duration
}

// Errorf makes an Error with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// CodeOf returns the code of the first Error in err's chain, OK for nil, and
// Internal for any other error.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}

// UndeliveredError says that a job stands but some of its items could not be
// enqueued yet.
type UndeliveredError struct {
	Job   string
	Cause error
}

func (e *UndeliveredError) Error() string {
	return fmt.Sprintf("job %s is accepted but not wholly enqueued: %v", e.Job, e.Cause)
}

func (e *UndeliveredError) Unwrap() error { return e.Cause }
