package call

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// junitCounts are how many instances became which element of a report in JUnit's form.
type junitCounts struct{ tests, failures, errors, skipped int }

// add counts instances in a state. One of which nobody knows whether it was reset, and one that has
// not ended, is an error: a report with it must not look as if all were well.
func (c *junitCounts) add(state string, n int) {
	c.tests += n
	switch tasks.ItemState(state) {
	case tasks.ItemSucceeded:
	case tasks.ItemFailed:
		c.failures += n
	case tasks.ItemCancelled:
		c.skipped += n
	default:
		c.errors += n
	}
}

// junitCase is a testcase, in the form that Jenkins and GitLab read.
type junitCase struct {
	XMLName   xml.Name      `xml:"testcase"`
	ClassName string        `xml:"classname,attr"`
	Name      string        `xml:"name,attr"`
	Time      string        `xml:"time,attr"`
	Failure   *junitTrouble `xml:"failure"`
	Error     *junitTrouble `xml:"error"`
	Skipped   *junitTrouble `xml:"skipped"`
}

// junitTrouble is why an instance was not reset.
type junitTrouble struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

// writeJUnit writes a report as the rows come. It ends with the last tag only if there was a row for
// each instance that its head counts.
func writeJUnit(w io.Writer, head report, rows eachRow) error {
	var want, got junitCounts
	counts := tasks.Counts(head.counts)
	for _, state := range tasks.ItemStates {
		want.add(string(state), *counts.Of(state))
	}
	buffered := bufio.NewWriter(w)
	tags := xml.NewEncoder(buffered)
	tags.Indent("", "  ")
	suites := element("testsuites", "name", "batchreset", "tests", want.tests, "failures", want.failures, "errors", want.errors)
	suite := element("testsuite", "name", tasks.Visible(head.name), "tests", want.tests, "failures", want.failures, "errors", want.errors, "skipped", want.skipped,
		"time", seconds(head.started, head.finished), "timestamp", moment(head.started))
	_, _ = buffered.WriteString(xml.Header) // Flush tells
	err := errors.Join(tags.EncodeToken(suites), tags.EncodeToken(suite), writeProperties(tags, head))
	if err == nil {
		err = rows(func(row resultRow) error {
			got.add(row.State, 1)
			return tags.Encode(junitCaseOf(head, row))
		})
	}
	if err == nil && got != want {
		err = terminal.WithCode(terminal.ExitAway, fmt.Errorf("the report is not whole: the %s changed while it was read; give the command again", head.kind))
	}
	if err != nil {
		return errors.Join(err, tags.Flush(), buffered.Flush())
	}
	err = errors.Join(tags.EncodeToken(suite.End()), tags.EncodeToken(suites.End()), tags.Close())
	_ = buffered.WriteByte('\n') // Flush tells
	return errors.Join(err, buffered.Flush())
}

// writeProperties writes what there is no attribute for.
func writeProperties(tags *xml.Encoder, head report) error {
	properties := element("properties")
	err := tags.EncodeToken(properties)
	property := func(name, value string) {
		if value != "" {
			p := element("property", "name", name, "value", tasks.Visible(value))
			err = errors.Join(err, tags.EncodeToken(p), tags.EncodeToken(p.End()))
		}
	}
	property(head.kind+"_id", head.id)
	property("state", head.state)
	property("list_sha256", head.listSHA256)
	property("total", strconv.Itoa(head.total))
	counts := tasks.Counts(head.counts)
	for _, state := range tasks.ItemStates {
		property(string(state), strconv.Itoa(*counts.Of(state)))
	}
	return errors.Join(err, tags.EncodeToken(properties.End()))
}

// junitCaseOf is the test of an instance. Some characters may not be in XML, however they are written, so
// that text of others is made visible.
func junitCaseOf(head report, row resultRow) junitCase {
	c := junitCase{ClassName: tasks.Visible(head.name), Name: tasks.Visible(row.InstanceID), Time: seconds(row.StartedAt, row.FinishedAt)}
	trouble := &junitTrouble{
		Message: tasks.Visible(strings.TrimPrefix(row.Code+": "+row.Message, ": ")),
		Type:    tasks.Visible(row.Code),
		Text:    tasks.Visible(strings.TrimSpace(fmt.Sprintf("%s after %s, item %s. %s", row.State, terminal.Plural(row.Attempts, "attempt"), row.ItemID, row.Evidence))),
	}
	switch tasks.ItemState(row.State) {
	case tasks.ItemSucceeded:
	case tasks.ItemFailed:
		c.Failure = trouble
	case tasks.ItemCancelled:
		c.Skipped = trouble
	case tasks.ItemUnknown:
		trouble.Message = strings.TrimSuffix("unknown: look at the instance before you reset it again. "+trouble.Message, " ")
		c.Error = trouble
	default:
		trouble.Message = strings.TrimSuffix("it has not ended: "+trouble.Message, ": ")
		c.Error = trouble
	}
	return c
}

// element is the begin of an element with these attributes, of which those that are empty are left out.
func element(name string, attributes ...any) xml.StartElement {
	e := xml.StartElement{Name: xml.Name{Local: name}}
	for i := 0; i < len(attributes); i += 2 {
		if value := fmt.Sprint(attributes[i+1]); value != "" {
			e.Attr = append(e.Attr, xml.Attr{Name: xml.Name{Local: attributes[i].(string)}, Value: value})
		}
	}
	return e
}

// seconds is the time between two times of a record, in the form of JUnit.
func seconds(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return "0.000"
	}
	return strconv.FormatFloat(max(0, to.Sub(from).Seconds()), 'f', 3, 64)
}

// moment is a time in the form of JUnit, which has no zone.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05")
}
