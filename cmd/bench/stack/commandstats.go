package stack

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// CommandCost is what a command has cost Redis since the statistics were reset.
type CommandCost struct {
	Name  string
	Calls int64
	Usec  int64 // microseconds
}

// Commands returns the cost of each command.
func (r *Redis) Commands(ctx context.Context) ([]CommandCost, error) {
	text, err := r.Client.Info(ctx, "commandstats").Result()
	if err != nil {
		return nil, err
	}
	return parseCommands(text)
}

// parseCommands reads the text of INFO commandstats.
func parseCommands(info string) (costs []CommandCost, err error) {
	for line := range strings.Lines(info) {
		name, fields, ok := strings.Cut(strings.TrimSpace(line), ":")
		name, ours := strings.CutPrefix(name, "cmdstat_")
		if !ok || !ours {
			continue
		}
		c := CommandCost{Name: name}
		for field := range strings.SplitSeq(fields, ",") {
			key, value, _ := strings.Cut(field, "=")
			switch key {
			case "calls":
				c.Calls, err = strconv.ParseInt(value, 10, 64)
			case "usec":
				c.Usec, err = strconv.ParseInt(value, 10, 64)
			}
			if err != nil {
				return nil, fmt.Errorf("INFO commandstats: %s: %w", name, err)
			}
		}
		costs = append(costs, c)
	}
	return costs, nil
}

// CommandTable prints what n instances have cost, the most expensive command first.
func CommandTable(costs []CommandCost, n int) string {
	costs = slices.SortedFunc(slices.Values(costs), func(a, b CommandCost) int { return cmp.Compare(b.Usec, a.Usec) })
	var b strings.Builder
	fmt.Fprintf(&b, "%-20s %14s %10s %14s\n", "command", "calls/instance", "us/call", "us/instance")
	for _, c := range costs {
		fmt.Fprintf(&b, "%-20s %14.3f %10.2f %14.2f\n", c.Name,
			float64(c.Calls)/float64(n), float64(c.Usec)/float64(max(c.Calls, 1)), float64(c.Usec)/float64(n))
	}
	b.WriteString("(eval and evalsha include the commands that their scripts call)\n")
	return b.String()
}
