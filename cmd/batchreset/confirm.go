package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"batchreset/api/client"
	"batchreset/tasks"
)

// askFirst has a person look once more at what is about to be destroyed, and whose it is. It
// fails unless the answer is yes.
func askFirst(ctx context.Context, std *streams, c *client.Client, instances []string) error {
	who, err := c.WhoAmI(ctx)
	if err != nil {
		return err
	}
	return confirm(ctx, std, fmt.Sprintf("%s: %s\nserver %s, tenant %s\nThis destroys the data on them. Go on?",
		plural(len(instances), "instance"), some(instances), c.Server(), tasks.Visible(who.Tenant)))
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// confirm asks a question, and fails unless the answer is yes.
func confirm(ctx context.Context, std *streams, question string) error {
	fmt.Fprintf(std.prompts(), "%s [y/N] ", question)
	answered := make(chan string, 1)
	go func() { // reading from a terminal cannot be ended; the process is what ends
		answer, _ := bufio.NewReader(std.in).ReadString('\n') // no answer is no
		answered <- strings.ToLower(strings.TrimSpace(answer))
	}()
	select {
	case answer := <-answered:
		if answer == "y" || answer == "yes" {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(std.prompts())
		return fmt.Errorf("%w; nothing was reset", why(ctx))
	}
	return withCode(exitOther, errors.New("nothing was reset"))
}
