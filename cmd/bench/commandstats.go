package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// commandCost is what a command has cost Redis since the statistics were reset.
type commandCost struct {
	name  string
	calls int64
	usec  int64
}

// commands returns the cost of each command.
func (s *server) commands(ctx context.Context) ([]commandCost, error) {
	text, err := s.client.Info(ctx, "commandstats").Result()
	if err != nil {
		return nil, err
	}
	return parseCommands(text)
}

// parseCommands reads the text of INFO commandstats.
func parseCommands(info string) (costs []commandCost, err error) {
	for line := range strings.Lines(info) {
		name, fields, ok := strings.Cut(strings.TrimSpace(line), ":")
		name, ours := strings.CutPrefix(name, "cmdstat_")
		if !ok || !ours {
			continue
		}
		c := commandCost{name: name}
		for field := range strings.SplitSeq(fields, ",") {
			key, value, _ := strings.Cut(field, "=")
			switch key {
			case "calls":
				c.calls, err = strconv.ParseInt(value, 10, 64)
			case "usec":
				c.usec, err = strconv.ParseInt(value, 10, 64)
			}
			if err != nil {
				return nil, fmt.Errorf("INFO commandstats: %s: %w", name, err)
			}
		}
		costs = append(costs, c)
	}
	return costs, nil
}

// commandTable prints what n instances have cost, the most expensive command first.
func commandTable(costs []commandCost, n int) string {
	costs = slices.SortedFunc(slices.Values(costs), func(a, b commandCost) int { return cmp.Compare(b.usec, a.usec) })
	var b strings.Builder
	fmt.Fprintf(&b, "%-20s %14s %10s %14s\n", "command", "calls/instance", "us/call", "us/instance")
	for _, c := range costs {
		fmt.Fprintf(&b, "%-20s %14.3f %10.2f %14.2f\n", c.name,
			float64(c.calls)/float64(n), float64(c.usec)/float64(max(c.calls, 1)), float64(c.usec)/float64(n))
	}
	b.WriteString("(eval and evalsha include the commands that their scripts call)\n")
	return b.String()
}
