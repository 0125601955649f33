package tasks

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Topic is what a tenant's endpoints can be told of: the type of a webhook event.
type Topic string

// The topics.
const (
	TopicJobFinished Topic = "job.finished"
	TopicItemFailed  Topic = "job.item_failed" // it failed, or nobody can say whether it was reset

	TopicRunWaiting  Topic = "run.waiting_approval"
	TopicRunDecided  Topic = "run.decided" // somebody approved or rejected it
	TopicRunPaused   Topic = "run.paused"  // by somebody, or because too many failed
	TopicRunFinished Topic = "run.finished"
)

// Topics lists every topic.
var Topics = []Topic{TopicJobFinished, TopicItemFailed, TopicRunWaiting, TopicRunDecided, TopicRunPaused, TopicRunFinished}

// MaxEndpoints is how many endpoints a tenant may have.
const MaxEndpoints = 10

// ErrNoEndpoint says that there is no endpoint with such an ID.
var ErrNoEndpoint = errors.New("there is no such webhook endpoint")

// Endpoint is where a tenant wants to be told, by a signed POST.
type Endpoint struct {
	ID        string  `json:"endpoint_id"`
	Tenant    string  `json:"tenant"`
	URL       string  `json:"url"`
	Topics    []Topic `json:"events"`
	CreatedAt Time    `json:"created_at,omitzero"`
	// Secret signs every notice. So does the one before it, for a time, while the
	// receiver learns the new one.
	Secret    string `json:"-"`
	OldSecret string `json:"-"`
	OldUntil  Time   `json:"old_secret_until,omitzero"`

	DisabledAt     Time   `json:"disabled_at,omitzero"` // zero: it is told
	DisabledReason string `json:"disabled_reason,omitempty"`
	// FailingSince is when the first notice failed since the last success.
	FailingSince Time    `json:"failing_since,omitzero"`
	Last         *Report `json:"last,omitempty"` // nil: nothing was sent yet
}

// NewEndpoint makes an endpoint with an ID and a secret of its own. The caller has checked the
// URL.
func NewEndpoint(tenant, url string, topics []Topic) Endpoint {
	return Endpoint{
		ID: "ep_" + strings.ToLower(rand.Text()[:16]), Tenant: tenant, URL: url, Topics: topics, Secret: NewEndpointSecret(),
	}
}

// NewEndpointSecret makes a secret as the Standard Webhooks specification writes it.
func NewEndpointSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails, says crypto/rand
	return "whsec_" + base64.StdEncoding.EncodeToString(b[:])
}

// ParseTopics reads the names of topics; none are TopicJobFinished. A name may be there twice. Errors: *FieldError.
func ParseTopics(names []string) ([]Topic, error) {
	if len(names) == 0 {
		return []Topic{TopicJobFinished}, nil
	}
	var topics []Topic
	for _, name := range names {
		topic := Topic(name)
		if !slices.Contains(Topics, topic) {
			return nil, fieldError("events", " must be of %s, not %q", join(Topics), name)
		}
		if !slices.Contains(topics, topic) {
			topics = append(topics, topic)
		}
	}
	return topics, nil
}

// Report is what came of sending a notice.
type Report struct {
	At      Time   `json:"at,omitzero"`
	EventID string `json:"event_id"`
	Topic   Topic  `json:"event"`
	Status  int    `json:"status,omitempty"` // of the answer, if there was one
	Error   string `json:"error,omitempty"`  // empty: the notice was taken
	// TookMillis is how long the answer took, or until it was clear that there is none.
	TookMillis int64 `json:"took_ms,omitempty"`
	// Gone says that the endpoint wants no more.
	Gone bool `json:"-"`
}

// Wants reports whether the endpoint is to be told of a topic now.
func (e Endpoint) Wants(t Topic) bool { return e.DisabledAt.IsZero() && slices.Contains(e.Topics, t) }

// Secrets are those that sign at the given time, the current one first.
func (e Endpoint) Secrets(now time.Time) []string {
	if e.OldSecret != "" && now.Before(e.OldUntil.Time) {
		return []string{e.Secret, e.OldSecret}
	}
	return []string{e.Secret}
}

// Event is something that has happened to a job and that endpoints can be told of.
type Event struct {
	Topic Topic
	Item  int // which failed; not for TopicJobFinished
	// Number counts the endings of one job, or of one item: it is greater after a retry. It
	// is in the record, so that every process gives the event the same ID.
	Number int
}

// UntoldEvents returns the events of the job that are not marked as told.
func (j Job) UntoldEvents() []Event {
	var events []Event
	for n, it := range j.Items {
		failed := it.State == ItemFailed || it.State == ItemUnknown
		if failed && it.Told != it.Delivery {
			events = append(events, Event{TopicItemFailed, n, it.Delivery})
		}
	}
	if number := j.ending(); j.State.Final() && j.Told != number {
		events = append(events, Event{TopicJobFinished, 0, number})
	}
	return events
}

// ending is the number of a final job's ending: how often its items were delivered. A
// retry delivers at least one of them again, and what is final is not delivered. Times
// would not do, because Redis's clock can go back.
func (j Job) ending() int {
	sum := 0
	for _, it := range j.Items {
		sum += it.Delivery
	}
	return sum
}

// Notice is what the endpoint is sent about an event of the job.
func (j Job) Notice(event Event, e Endpoint) Notice {
	n := Notice{Topic: event.Topic, Tenant: j.Tenant, EndpointID: e.ID}
	var at Time
	var data any
	switch event.Topic {
	case TopicItemFailed:
		it := j.Items[event.Item]
		n.EventID = it.ID + "-failed-" + strconv.Itoa(event.Number)
		it.History = nil // it is in the record, for those who want it
		at, data = it.FinishedAt, struct {
			JobID string `json:"job_id"`
			Item  Item   `json:"item"`
		}{j.ID, it}
	default:
		n.EventID = j.ID + "-finished-" + strconv.Itoa(event.Number)
		j.Items = nil
		at, data = j.FinishedAt, j
	}
	n.Body = NoticeBody(event.Topic, at, data)
	return n
}

// NoticeBody is the body of a notice, as the Standard Webhooks specification has it.
func NoticeBody(topic Topic, at Time, data any) []byte {
	b, err := json.Marshal(struct {
		Type      Topic `json:"type"`
		Timestamp Time  `json:"timestamp"`
		Data      any   `json:"data"`
	}{topic, at, data})
	if err != nil {
		panic(err) // texts, numbers and times always encode
	}
	return b
}

// TypeNotice is the asynq type of a notice. Workers of every version that may run
// side by side must know it.
const TypeNotice = "webhook:notice"

// Notice is the payload of an asynq task: one event on its way to one endpoint. It
// carries the body, because the record may have moved on when it is sent.
type Notice struct {
	EventID    string          `json:"event_id"`
	Topic      Topic           `json:"event"`
	Tenant     string          `json:"tenant"`
	EndpointID string          `json:"endpoint_id"`
	Body       json.RawMessage `json:"body"`
}

// TaskID is the asynq task ID of the notice: asynq refuses an ID that it still knows,
// which makes enqueuing safe to repeat.
func (n Notice) TaskID() string { return n.EventID + "-" + n.EndpointID }

// About is what the notice is about: "job" or "run", and its ID. Every event ID begins with that.
func (n Notice) About() (kind, id string) {
	kind, _, _ = strings.Cut(string(n.Topic), ".")
	id, _, _ = strings.Cut(n.EventID, "-")
	return kind, id
}

// Encode returns the task payload.
func (n Notice) Encode() []byte {
	b, err := json.Marshal(n)
	if err != nil {
		panic(err) // the body was encoded by us
	}
	return b
}

// DecodeNotice reads a task payload and checks that it is complete.
func DecodeNotice(payload []byte) (Notice, error) {
	var n Notice
	if err := json.Unmarshal(payload, &n); err != nil {
		return Notice{}, fmt.Errorf("task payload is not a notice: %w", err)
	}
	if n.EventID == "" || n.Topic == "" || n.Tenant == "" || n.EndpointID == "" || len(n.Body) == 0 {
		return Notice{}, fmt.Errorf("task payload: event_id, event, tenant, endpoint_id or body is missing")
	}
	return n, nil
}
