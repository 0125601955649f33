package tasks

import (
	"fmt"
	"strings"
	"unicode"
)

// Visible makes text of others safe to look at, on one line: a character that is not seen,
// turns the direction of the writing, moves the cursor or changes colours is shown as its
// number, [U+202E]. Every kind of space, line ends too, becomes a plain one.
func Visible(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if strings.IndexFunc(s, unseen) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !unseen(r):
			b.WriteRune(r)
		case unicode.IsSpace(r):
			b.WriteByte(' ')
		default:
			fmt.Fprintf(&b, "[U+%04X]", r)
		}
	}
	return b.String()
}

// VisibleLines is Visible for a text of several lines, which stay.
func VisibleLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = Visible(lines[i])
	}
	return strings.Join(lines, "\n")
}

// unseen reports whether a character is not visible by itself. Some letters are not either,
// such as U+3164. Characters that change the one before them, as accents do, do not count.
func unseen(r rune) bool {
	return !unicode.IsPrint(r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}
