package terminal_test

import (
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestReadSecret(t *testing.T) {
	for text, want := range map[string]string{" token\r\n": "token", "two words": "two words"} {
		if got, err := terminal.ReadSecret(terminaltest.File(t, text)); got != want || err != nil {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{"": "is empty", "\n": "is empty", "\ufefftoken\n": "begins with a byte order mark"} {
		if got, err := terminal.ReadSecret(terminaltest.File(t, text)); got != "" || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
