package main

import (
	"strings"
	"testing"
)

func TestTooFewOpenFilesAreSaid(t *testing.T) {
	if err := enoughFiles(1); err != nil {
		t.Error(err)
	}
	if err := enoughFiles(1 << 40); err == nil || !strings.Contains(err.Error(), "1099511627776 waiters need") || !strings.Contains(err.Error(), "ulimit -Hn") {
		t.Error(err)
	}
}
