package httpdriver

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"batchreset/worker"
)

// state is what a word in an answer says about a reset.
type state string

const (
	done    state = "done"
	ended   state = "ended" // done, unless there is an error or a word for failed beside it
	running state = "running"
	failed  state = "failed"
)

// vocabulary is what words mean. They are as [spelling] makes them.
type vocabulary map[string]state

// knownWords are those of the conventions for operations that take long. What is not
// clearly one thing is not among them: a phone that is "ready" or "active" may not have
// begun its reset, and what is "expired" or "timed out" may still go on.
func knownWords() vocabulary {
	all := vocabulary{}
	for s, words := range map[state]string{
		done:    "succeeded success successful ok 2",
		ended:   "done completed complete finished",
		running: "running pending queued accepted scheduled submitted waiting notstarted starting started initializing preparing processing executing inprogress ongoing creating updating provisioning resetting restarting canceling cancelling 1",
		failed:  "failed failure fail error errored canceled cancelled aborted rejected -1",
	} {
		for word := range strings.FieldsSeq(words) {
			all[word] = s
		}
	}
	return all
}

// newVocabulary adds words to the known ones, each given as GROUP=WORD.
func newVocabulary(more []string) (vocabulary, error) {
	all := maps.Clone(knownWords())
	for _, entry := range more {
		group, word, found := strings.Cut(entry, "=")
		s, word := state(strings.TrimSpace(group)), spelling(word)
		switch {
		case !found || word == "":
			return nil, fmt.Errorf("must be like done=wiped,failed=broken, not %q", entry)
		case s != done && s != running && s != failed:
			return nil, fmt.Errorf("%q is none of done, running and failed, in %q", group, entry)
		}
		before, known := all[word]
		if before == ended {
			before = done
		}
		if known && before != s {
			return nil, fmt.Errorf("%q cannot be a word for %s, because it is one for %s", word, s, before)
		}
		if !known {
			all[word] = s
		}
	}
	return all, nil
}

// spelling makes InProgress, IN_PROGRESS and "in progress" one word. What has digits in it
// keeps its signs: -1 is not 1.
func spelling(word string) string {
	word = strings.ToLower(strings.TrimSpace(word))
	if strings.ContainsAny(word, "0123456789") {
		return word
	}
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(word)
}

// quoted is a word from outside, for people to read.
func quoted(word string) string { return strconv.Quote(worker.Printable(word, maxCode)) }
