package terminal

import (
	"fmt"
	"io"

	"batchreset/tasks"
)

// The verdicts about what was looked at.
const (
	VerdictOK   = "ok"
	VerdictWarn = "warn"
	VerdictFail = "fail"
)

// Finding is what was seen of one thing.
type Finding struct {
	As      string `json:"as"` // caller or operator
	Subject string `json:"subject"`
	Verdict string `json:"verdict"`
	Seen    string `json:"seen"`
	Advice  string `json:"advice,omitempty"` // what to do, unless it is ok
}

// Unchecked is what was not looked at.
type Unchecked struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Checkup gathers what is found.
type Checkup struct {
	Findings   []Finding   `json:"findings"`
	NotChecked []Unchecked `json:"not_checked"`
	// Space is what fills each server of Redis.
	Space []tasks.Space `json:"redis_space,omitempty"`

	as string
}

// As begins with what is found as a caller, or as an operator.
func (c *Checkup) As(whom string) { c.as = whom }

// OK notes that something is well.
func (c *Checkup) OK(subject, format string, args ...any) {
	c.note(subject, VerdictOK, "", format, args...)
}

// Warn notes that something should be another way, and what to do about it.
func (c *Checkup) Warn(subject, advice, format string, args ...any) {
	c.note(subject, VerdictWarn, advice, format, args...)
}

// Fail notes that something does not work, and what to do about it.
func (c *Checkup) Fail(subject, advice, format string, args ...any) {
	c.note(subject, VerdictFail, advice, format, args...)
}

// Skip notes that something was not looked at, and why.
func (c *Checkup) Skip(what, why string) {
	c.NotChecked = append(c.NotChecked, Unchecked{What: what, Why: why})
}

func (c *Checkup) note(subject, verdict, advice, format string, args ...any) {
	c.Findings = append(c.Findings, Finding{As: c.as, Subject: subject, Verdict: verdict, Seen: fmt.Sprintf(format, args...), Advice: advice})
}

// Failed is how many things do not work.
func (c *Checkup) Failed() (n int) {
	for _, f := range c.Findings {
		if f.Verdict == VerdictFail {
			n++
		}
	}
	return n
}

// View shows all of it.
func (c *Checkup) View() View {
	return View{
		Document: Checkup{Findings: NotNil(c.Findings), NotChecked: NotNil(c.NotChecked), Space: c.Space},
		Rows:     Each(c.Findings), Columns: []string{"verdict", "as", "subject", "seen", "advice"},
		Text: func(w io.Writer) error { return c.write(w) },
	}
}

// write has a line for each finding, and one for what to do where it is not ok.
func (c *Checkup) write(w io.Writer) error {
	width := 0
	for _, f := range c.Findings {
		width = max(width, len(f.Subject))
	}
	as := ""
	for _, f := range c.Findings {
		if as != f.As {
			as = f.As
			fmt.Fprintf(w, "As %s:\n", as)
		}
		fmt.Fprintf(w, "  %-4s  %-*s  %s\n", f.Verdict, width, f.Subject, tasks.Visible(f.Seen))
		if f.Advice != "" {
			fmt.Fprintf(w, "  %-4s  %-*s  do: %s\n", "", width, "", tasks.Visible(f.Advice))
		}
	}
	for _, s := range c.Space {
		if err := writeSpace(w, s); err != nil {
			return err
		}
	}
	for _, u := range c.NotChecked {
		fmt.Fprintf(w, "not checked: %s: %s\n", u.What, tasks.Visible(u.Why))
	}
	return nil
}
