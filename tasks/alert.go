package tasks

import (
	"strconv"
	"time"
)

// AlertKind is something that operators are told of when it begins and when it ends.
type AlertKind string

// The kinds.
const (
	AlertRunPaused       AlertKind = "run_paused"
	AlertRunApproval     AlertKind = "run_waits_for_approval"
	AlertHalt            AlertKind = "halt_forgotten"   // it is old, and holds items
	AlertUnserved        AlertKind = "driver_unserved"  // items wait for a driver that no living worker has
	AlertUnreachable     AlertKind = "driver_unreached" // no worker reaches its control plane
	AlertNotAccepting    AlertKind = "redis_full"       // new work is refused
	AlertWebhookDisabled AlertKind = "webhook_disabled"
)

const (
	// AlertAgain is when operators are told once more of what lasts.
	AlertAgain = 4 * time.Hour
	// HaltForgottenAfter is how old a halt must be that holds items before operators are told.
	HaltForgottenAfter = 4 * time.Hour
	// AlertSettles is how long something must be gone before operators are told that it has ended, and how long what can be a
	// matter of seconds must last before they are told that it has begun.
	AlertSettles = time.Minute
	// MaxAlerts is how many are told of at a time.
	MaxAlerts = 1000
)

// Brief reports whether such a thing often lasts for seconds alone, as while a worker restarts.
func (k AlertKind) Brief() bool {
	return k == AlertUnserved || k == AlertUnreachable || k == AlertNotAccepting
}

// Alert is something that operators should know of.
type Alert struct {
	Kind AlertKind `json:"kind"`
	// About tells it from others of its kind: the ID of a run, the name of a driver.
	About  string `json:"about,omitempty"`
	Tenant string `json:"tenant,omitempty"`
	Text   string `json:"text"` // a sentence without a full stop
	// Path is of the page of the operators' site that shows more.
	Path string `json:"path,omitempty"`
}

// Key tells it from all others.
func (a Alert) Key() string { return string(a.Kind) + " " + a.About }

// AlertState is what operators were told of an alert.
type AlertState struct {
	Alert
	Since Time `json:"since"`           // when it was seen first
	Gone  Time `json:"gone,omitzero"`   // since when it has not been seen; zero: it is there
	Told  Tell `json:"told,omitzero"`   // who was told when that it is there, by the name of the receiver
	Ended bool `json:"ended,omitempty"` // who is in Told is to be told that it is over
}

// Tell says when each receiver was told last.
type Tell map[string]Time

// ID names a beginning of an alert: one that comes again has another.
func (s AlertState) ID() string {
	return string(s.Kind) + "-" + s.About + "-" + strconv.FormatInt(s.Since.UnixMilli(), 36)
}

// AlertStates are those that are there or were until lately, by key.
type AlertStates map[string]AlertState

// See takes in what is there now. What is of a kind that could not be looked at stays as it was.
func (all AlertStates) See(alerts []Alert, looked map[AlertKind]bool, now time.Time) {
	at := FromMillis(now.UnixMilli())
	seen := map[string]bool{}
	for _, a := range alerts {
		s, known := all[a.Key()]
		switch {
		case !known && len(all) >= MaxAlerts:
			continue
		case !known:
			s = AlertState{Since: at}
		case s.Ended: // it has come again; those who were not told of the end take it for the same
			s.Ended, s.Since = false, at
		}
		s.Alert, s.Gone = a, Time{}
		all[a.Key()], seen[a.Key()] = s, true
	}
	for key, s := range all {
		switch {
		case seen[key] || !looked[s.Kind]:
			continue
		case s.Gone.IsZero():
			s.Gone = at
		case now.Sub(s.Gone.Time) >= AlertSettles:
			s.Ended = true
		}
		if s.Ended && len(s.Told) == 0 || !s.Gone.IsZero() && len(s.Told) == 0 && s.Kind.Brief() {
			delete(all, key)
			continue
		}
		all[key] = s
	}
}

// AlertChange says what a receiver is told.
type AlertChange string

// The changes.
const (
	AlertBegan AlertChange = "began"
	AlertLasts AlertChange = "lasts"
	AlertEnded AlertChange = "ended"
)

// Due is what a receiver is to be told of an alert now; empty: nothing.
func (s AlertState) Due(receiver string, now time.Time) AlertChange {
	told, was := s.Told[receiver]
	switch {
	case s.Ended && was:
		return AlertEnded
	case s.Ended, !was && !s.Gone.IsZero(), !was && s.Kind.Brief() && now.Sub(s.Since.Time) < AlertSettles:
		return ""
	case !was:
		return AlertBegan
	case s.Gone.IsZero() && now.Sub(told.Time) >= AlertAgain:
		return AlertLasts
	}
	return ""
}

// Tell notes that a receiver was told.
func (all AlertStates) Tell(key, receiver string, change AlertChange, now time.Time) {
	s, found := all[key]
	switch {
	case !found:
		return
	case change == AlertEnded:
		delete(s.Told, receiver)
	default:
		if s.Told == nil {
			s.Told = Tell{}
		}
		s.Told[receiver] = FromMillis(now.UnixMilli())
	}
	if s.Ended && len(s.Told) == 0 {
		delete(all, key)
		return
	}
	all[key] = s
}

// Forget drops receivers that there are no more, so that nobody waits for them.
func (all AlertStates) Forget(receivers map[string]bool, after time.Duration, now time.Time) {
	for key, s := range all {
		for name, at := range s.Told {
			if !receivers[name] && now.Sub(at.Time) > after {
				delete(s.Told, name)
			}
		}
		if s.Ended && len(s.Told) == 0 {
			delete(all, key)
		}
	}
}
