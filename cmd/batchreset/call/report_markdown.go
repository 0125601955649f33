package call

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

const (
	// namedPerCode is how many instances a summary names of those that failed with the same code.
	namedPerCode = 5
	// longestMessage is how many characters of a message a summary has.
	longestMessage = 200
)

// failureExample is what a summary says of a code, besides how many there are.
type failureExample struct {
	message   string // of the first one
	instances []string
}

// errEnough ends the reading of rows.
var errEnough = errors.New("enough rows")

// writeMarkdown writes a short summary, as for $GITHUB_STEP_SUMMARY. It is written when all is known:
// half of it would look whole.
func writeMarkdown(w io.Writer, head report, rows eachRow) error {
	examples, err := examplesOf(head, rows)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "### Reset %s %s: %s\n\n", head.kind, literal(head.name), literal(head.state))
	fmt.Fprintf(b, "%s, %s %s", terminal.Plural(head.total, "instance"), head.kind, literal(head.id))
	if !head.finished.IsZero() && !head.started.IsZero() {
		fmt.Fprintf(b, ", took %s", terminal.Took(head.started, head.finished))
	}
	if head.listSHA256 != "" {
		fmt.Fprintf(b, ", list sha256 %s", literal(head.listSHA256))
	}
	fmt.Fprint(b, "\n\n| state | instances |\n| --- | ---: |\n")
	counts := tasks.Counts(head.counts)
	for _, state := range tasks.ItemStates {
		if n := *counts.Of(state); n > 0 {
			fmt.Fprintf(b, "| %s | %d |\n", state, n)
		}
	}
	writeFailures(b, head, examples)
	if counts.Unknown > 0 {
		fmt.Fprint(b, "\nunknown: the reset was sent and nobody can say whether it happened. Look at the instance before you reset it again.\n")
	}
	return b.Flush()
}

// writeFailures has a line for each code that is known to be frequent.
func writeFailures(w io.Writer, head report, examples map[string]*failureExample) {
	if len(head.failures) == 0 {
		return
	}
	fmt.Fprint(w, "\n| failed or unknown | code | first message | first instances |\n| ---: | --- | --- | --- |\n")
	others := head.counts.Failed + head.counts.Unknown
	for _, f := range head.failures {
		others -= f.Count
		e := examples[f.Code]
		var names []string
		for _, id := range e.instances {
			names = append(names, literal(id))
		}
		if more := f.Count - len(names); more > 0 {
			names = append(names, fmt.Sprintf("and %d more", more))
		}
		fmt.Fprintf(w, "| %d | %s | %s | %s |\n", f.Count, literal(f.Code), literal(e.message), strings.Join(names, ", "))
	}
	if others > 0 {
		fmt.Fprintf(w, "| %d | other codes | | |\n", others)
	}
}

// examplesOf finds the first instances of each code, and reads no more rows than it needs.
func examplesOf(head report, rows eachRow) (map[string]*failureExample, error) {
	examples := map[string]*failureExample{}
	missing := 0
	for _, f := range head.failures {
		examples[f.Code] = &failureExample{}
		missing += min(f.Count, namedPerCode)
	}
	if missing == 0 {
		return examples, nil
	}
	err := rows(func(row resultRow) error {
		e := examples[row.Code]
		if !isFailure(row.State) || e == nil || len(e.instances) == namedPerCode {
			return nil
		}
		if e.instances = append(e.instances, row.InstanceID); len(e.instances) == 1 {
			e.message = row.Message
		}
		if missing--; missing == 0 {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return examples, err
}

// literal is text of others as code. Every character that could mean something to Markdown or HTML, or
// be a part of a link or of the name of a user, is written by its number.
func literal(text string) string {
	text = tasks.Visible(text)
	if text == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString("<code>")
	n := 0
	for _, r := range text {
		if n++; n > longestMessage {
			b.WriteString("…")
			break
		}
		if r < unicode.MaxASCII && r != ' ' && r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			fmt.Fprintf(&b, "&#%d;", r)
		} else {
			b.WriteRune(r)
		}
	}
	b.WriteString("</code>")
	return b.String()
}
