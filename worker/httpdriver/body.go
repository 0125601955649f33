package httpdriver

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
)

// account is what a body says about a reset.
type account struct {
	states  map[state]bool
	code    string // an error_code other than "0"
	message string
	failing bool   // it has an error, though no error_code
	trouble string // why it is not understood, or empty
}

// fold is the state that everything in the account agrees on, or empty if it says nothing
// of one. If it is not to be understood, why says so.
func (a account) fold() (s state, why string) {
	over := a.states[done] || a.states[ended]
	switch {
	case a.trouble != "":
		return "", a.trouble
	case a.states[running] && (over || a.states[failed]), a.states[done] && a.states[failed]:
		return "", "its states contradict each other"
	case a.states[running]:
		return running, ""
	case a.states[failed], a.code != "", a.failing && over && !a.states[done]:
		return failed, ""
	case a.failing:
		return "", "it has an error, and does not say that the reset failed"
	case over:
		return done, ""
	}
	return "", ""
}

// understand reads a body that is a JSON object.
func (v vocabulary) understand(body []byte) account {
	s := survey{words: v, account: account{states: map[state]bool{}}}
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	top, ok := fieldsOf(body)
	if !ok || !json.Valid(body) {
		s.doubt("it is not a JSON object")
		return s.account
	}
	s.object(top, outermost, true)
	if len(s.states) == 0 {
		for _, list := range s.lists {
			for _, entry := range objectsOf(list) {
				s.object(entry, innermost, true)
			}
		}
	}
	return s.account
}

// survey collects what a body says.
type survey struct {
	account

	words vocabulary
	lists []json.RawMessage // of objects, perhaps
}

// Where an object stands in a body. States are looked for one level below the outermost
// object; what is called data counts as outermost, too, because it is where envelopes
// have their letter.
const (
	innermost = iota
	inner
	outermost
)

// object collects what one object and those in it say. If it is not strict, words that are
// not known are left alone: it holds the result, which has states of its own.
func (s *survey) object(fields []field, where int, strict bool) {
	s.told(fields)
	for _, f := range fields {
		s.field(f, strict)
	}
	over := slices.ContainsFunc(fields, func(f field) bool { return f.name == "done" && string(f.value) == "true" })
	for _, f := range fields {
		// A status in an error is the error's.
		if where > innermost && f.name != "error" && f.name != "errors" {
			s.nested(f, where, strict && (!over || f.name != "response"))
		}
	}
}

// field takes what a field itself says.
func (s *survey) field(f field, strict bool) {
	if f.isState() {
		switch inside, nested := fieldsOf(f.value); {
		case !nested:
			s.word(f.value, strict)
		case !slices.ContainsFunc(inside, func(f field) bool { return f.isState() || f.name == "done" }):
			s.doubt("its " + f.name + " names no state")
		}
		return
	}
	switch value := string(f.value); f.name {
	case "conclusion", "outcome":
		if value != "null" {
			s.word(f.value, strict)
		}
	case "result":
		s.word(f.value, false) // free text, often
	case "done":
		if value != "true" && value != "false" {
			s.doubt("its done is neither true nor false")
		}
		s.over(value)
	case "completed", "complete", "finished":
		s.over(value) // or a time, which says nothing
	case "success", "succeeded", "ok":
		if slices.Contains([]string{"false", `"false"`, "0"}, value) {
			s.failing = true
		}
	case "error", "errors":
		if !empty(f.value) {
			s.failing = true
		}
	}
}

// over takes a value that is true when all is over.
func (s *survey) over(value string) {
	switch value {
	case "true":
		s.states[ended] = true
	case "false":
		s.states[running] = true
	}
}

// nested goes into a field that is an object or a list.
func (s *survey) nested(f field, where int, strict bool) {
	if inside, ok := fieldsOf(f.value); ok {
		next := innermost
		if where == outermost && f.name == "data" {
			next = inner
		}
		s.object(inside, next, strict)
		return
	}
	switch f.name {
	case "jobs", "cmdjobs":
		s.jobs(f.value)
	default:
		s.lists = append(s.lists, f.value)
	}
}

// jobs collects what a list of jobs says. Each of them has a state, or nobody knows how it
// goes.
func (s *survey) jobs(list json.RawMessage) {
	entries := objectsOf(list)
	if len(entries) == 0 {
		s.doubt("it lists no jobs")
	}
	for _, entry := range entries {
		if !slices.ContainsFunc(entry, func(f field) bool { return f.isState() || f.name == "done" || f.name == "errorcode" && !empty(f.value) }) {
			s.doubt("a job in it has no state")
		}
		s.object(entry, innermost, true)
	}
}

// told takes an object's error code and message. The outermost object that has a code
// speaks, and what it says beside the code "0" is no error's.
func (s *survey) told(fields []field) {
	codes, message := []string{}, ""
	for _, f := range fields {
		switch f.name {
		case "errorcode":
			if code, told := s.errorCode(f.value); told && !slices.Contains(codes, code) {
				codes = append(codes, code)
			}
		case "errormsg":
			message = cmp.Or(message, text(f.value))
		case "error":
			message = cmp.Or(message, errorText(f.value))
		}
	}
	switch {
	case len(codes) > 1:
		s.doubt("it has two error codes")
	case len(codes) == 1 && codes[0] != "0" && s.code == "":
		s.code, s.message = codes[0], message
	case len(codes) == 0:
		s.message = cmp.Or(s.message, message)
	}
}

// errorCode is a field's error code; null and empty ones are none.
func (s *survey) errorCode(raw json.RawMessage) (code string, told bool) {
	code = text(raw)
	if code == "" && string(raw) != "null" && string(raw) != `""` {
		s.doubt("its error_code is neither text nor a number")
	}
	return code, code != ""
}

// word takes a state as text or a number.
func (s *survey) word(raw json.RawMessage, strict bool) {
	word := text(raw)
	state, known := s.words[spelling(word)]
	switch {
	case known:
		s.states[state] = true
	case strict && word == "":
		s.doubt("its state is neither a word nor a number")
	case strict:
		s.doubt("its state " + quoted(word) + " is not known")
	}
}

// doubt keeps the first reason not to understand.
func (s *survey) doubt(why string) {
	if s.trouble == "" {
		s.trouble = why
	}
}

// field is a field of a JSON object.
type field struct {
	name  string // without case, _ and -: errorCode and Error_Code are error_code
	value json.RawMessage
}

// isState says whether the field is one that names a state.
func (f field) isState() bool {
	switch f.name {
	case "status", "state", "phase", "provisioningstate", "lifecyclestate",
		"jobstatus", "jobstate", "taskstatus", "taskstate", "operationstatus", "operationstate":
		return true
	}
	return false
}

// fieldsOf are the fields of a JSON object, all of them, as often as they are there.
func fieldsOf(raw []byte) (all []field, ok bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, false
	}
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil {
			return nil, false
		}
		all = append(all, field{strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name.(string))), value})
	}
	return all, true
}

// objectsOf are the objects in a JSON list.
func objectsOf(raw []byte) (all [][]field) {
	var list []json.RawMessage
	_ = json.Unmarshal(raw, &list) // what is no list has none
	for _, entry := range list {
		if fields, ok := fieldsOf(entry); ok {
			all = append(all, fields)
		}
	}
	return all
}

// text is a JSON string's content or a number's digits, else empty.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var n json.Number
	if json.Unmarshal(raw, &n) == nil {
		return n.String()
	}
	return ""
}

// empty says whether a field of this value may as well not be there.
func empty(raw json.RawMessage) bool {
	return slices.Contains([]string{"null", "false", `""`, "0", `"0"`, "[]"}, string(raw))
}

// errorText is what an error says that is text, or an object with a message.
func errorText(raw json.RawMessage) string {
	inside, ok := fieldsOf(raw)
	if !ok {
		return text(raw)
	}
	for _, f := range inside {
		if f.name == "message" {
			return text(f.value)
		}
	}
	return ""
}
