package worker

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	type wish struct {
		wait time.Duration
		ok   bool
	}
	none := wish{}
	for _, row := range []struct {
		header, date string
		want         wish
	}{
		{"", "", none},
		{"0", "", wish{0, true}},
		{"00090", "", wish{90 * time.Second, true}},
		{"3599", "", wish{3599 * time.Second, true}},
		{"3601", "", wish{time.Hour, true}},
		{"999999999", "", wish{time.Hour, true}},
		{"9223372036854775808", "", wish{time.Hour, true}},
		{strings.Repeat("9", 500), "", wish{time.Hour, true}},
		{"-5", "", none},
		{"+5", "", none},
		{"1.5", "", none},
		{"1e3", "", none},
		{" 7", "", none},
		{"7 s", "", none},
		{"7, 7", "", none},
		{"0x10", "", none},
		{"1_000", "", none},
		{"٣", "", none},
		{"tomorrow", "", none},
		{"Sun, 22 Nov 2026 10:01:30 GMT", "", wish{90 * time.Second, true}},
		{"Sunday, 22-Nov-26 10:01:30 GMT", "", wish{90 * time.Second, true}},
		{"Sun Nov 22 10:01:30 2026", "", wish{90 * time.Second, true}},
		{"Sun, 22 Nov 2026 09:00:00 GMT", "", wish{0, true}},
		{"Sun, 22 Nov 2026 10:00:00 GMT", "", wish{0, true}},
		{"Fri, 31 Dec 9999 23:59:59 GMT", "", wish{time.Hour, true}},
		{"Mon, 01 Jan 0001 00:00:00 GMT", "", wish{0, true}},
		{"2026-11-22T10:01:30Z", "", none},
		// The sender's clock is ten minutes ahead, then as many behind, then unreadable.
		{"Sun, 22 Nov 2026 10:10:45 GMT", "Sun, 22 Nov 2026 10:10:00 GMT", wish{45 * time.Second, true}},
		{"Sun, 22 Nov 2026 09:50:45 GMT", "Sun, 22 Nov 2026 09:50:00 GMT", wish{45 * time.Second, true}},
		{"Sun, 22 Nov 2026 10:00:45 GMT", "today", wish{45 * time.Second, true}},
		{"45", "Sun, 22 Nov 2026 10:10:00 GMT", wish{45 * time.Second, true}},
	} {
		h := http.Header{"Retry-After": {row.header}, "Date": {row.date}}
		if wait, ok := RetryAfter(h, now); (wish{wait, ok}) != row.want {
			t.Errorf("%.40q, sent at %q, is %s, %t; want %+v", row.header, row.date, wait, ok, row.want)
		}
	}
	if _, ok := RetryAfter(http.Header{}, now); ok {
		t.Error("a header that is not there is read")
	}
}

func TestReadAnswer(t *testing.T) {
	cut := io.MultiReader(strings.NewReader("12"), iotest.ErrReader(io.ErrUnexpectedEOF))
	for _, row := range []struct {
		name   string
		status int
		sent   io.Reader
		body   string
		broken string
	}{
		{"none", 204, strings.NewReader(""), "", ""},
		{"as long as may be", 500, strings.NewReader("1234"), "1234", ""},
		{"too long", 200, strings.NewReader("123456"), "12345", "it is longer than 4 bytes"},
		{"cut off", 200, cut, "12", "unexpected EOF"},
		{"a connection", 101, iotest.ErrReader(errors.New("it is read")), "", ""},
	} {
		said := ReadAnswer(&http.Response{StatusCode: row.status, Header: http.Header{"Retry-After": {"7"}}, Body: io.NopCloser(row.sent)}, 4)
		broken := ""
		if said.Broken != nil {
			broken = said.Broken.Error()
		}
		if said.Status != row.status || string(said.Body) != row.body || broken != row.broken || time.Since(said.At) > time.Minute {
			t.Errorf("%s: %+v", row.name, said)
		}
		if wait, ok := said.RetryAfter(); wait != 7*time.Second || !ok {
			t.Errorf("%s: asks for %s, %t", row.name, wait, ok)
		}
	}
}
