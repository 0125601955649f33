package terminal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// Confirm asks a question, and fails unless the answer is yes.
func Confirm(ctx context.Context, std *Streams, question string) error {
	fmt.Fprintf(std.prompts(), "%s [y/N] ", question)
	answered := make(chan string, 1)
	go func() { // reading from a terminal cannot be ended; the process is what ends
		answer, _ := bufio.NewReader(std.In).ReadString('\n') // no answer is no
		answered <- strings.ToLower(strings.TrimSpace(answer))
	}()
	select {
	case answer := <-answered:
		if answer == "y" || answer == "yes" {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(std.prompts())
		return fmt.Errorf("%w; nothing was reset", Cause(ctx))
	}
	return WithCode(ExitOther, errors.New("nothing was reset"))
}

// AskSecret asks on a terminal for what it does not show.
func AskSecret(std *Streams, tty *os.File, prompt string) (string, error) {
	fmt.Fprint(std.prompts(), prompt)
	typed, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(std.prompts())
	return string(typed), err
}
