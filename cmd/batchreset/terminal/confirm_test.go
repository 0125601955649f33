package terminal

import (
	"context"
	"io"
	"strings"
	"testing"
)

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, " YES \n": true, "yes": true, "n\n": false, "\n": false, "": false, "yesterday\n": false} {
		var asked strings.Builder
		err := Confirm(t.Context(), &Streams{In: strings.NewReader(answer), Err: &asked}, "Go on?")
		if (err == nil) != want || asked.String() != "Go on? [y/N] " {
			t.Errorf("%q after %q: %v", answer, asked.String(), err)
		}
	}
	t.Run("Ctrl-C is no", func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		in, typing := io.Pipe()
		defer func() { _ = typing.Close() }()
		interrupt()
		if err := Confirm(ctx, &Streams{In: in, Err: io.Discard}, "Go on?"); err == nil {
			t.Error("it goes on")
		}
	})
}
