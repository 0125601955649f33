package api

import (
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// sayAgain is how often one kind of trouble is logged at most. A client that breaks off handshakes,
// or a process without free file descriptors, would make thousands of lines.
const sayAgain = 10 * time.Second

// serverLog takes what an http.Server logs.
type serverLog struct {
	log *slog.Logger

	mu    sync.Mutex
	kinds map[string]*trouble
}

// trouble is one kind of message.
type trouble struct {
	rate.Sometimes
	leftOut int // since the last line
}

func newServerLog(to *slog.Logger) *log.Logger {
	return log.New(&serverLog{log: to, kinds: map[string]*trouble{}}, "", 0)
}

// Write takes one message.
func (l *serverLog) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	message := strings.TrimSpace(string(text))
	kind := beginning(message)
	t := l.kinds[kind]
	if t == nil {
		t = &trouble{Sometimes: rate.Sometimes{First: 1, Interval: sayAgain}}
		l.kinds[kind] = t
	}
	t.leftOut++
	t.Do(func() {
		l.log.Warn("trouble of a listener", "text", message, "left_out", t.leftOut-1)
		t.leftOut = 0
	})
	return len(text), nil
}

// beginning is how a message begins, before it says whom it is about: "http: TLS handshake",
// "http: Accept error:", "http: panic serving".
func beginning(message string) string {
	words := strings.SplitN(message, " ", 4)
	return strings.Join(words[:min(3, len(words))], " ")
}
