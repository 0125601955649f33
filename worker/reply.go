package worker

import (
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxRetryAfter bounds what an answer can ask for: an item's time is a day.
const maxRetryAfter = 24 * time.Hour

// RetryAfter reads a Retry-After header in either form; 0 when there is none.
func RetryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil {
		return time.Duration(min(max(0, seconds), int(maxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(max(0, at.Sub(now)), maxRetryAfter)
	}
	return 0
}

// Printable makes text from outside harmless in logs and on terminals, and cuts
// it to limit bytes on a UTF-8 boundary.
func Printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), limit)], "")
}
