package stack

import (
	"context"
	"strings"

	"batchreset/cmd/harness"
)

// Program is the batchreset that is measured.
type Program struct {
	path string
	help map[string]string // of its commands
}

// NewProgram takes the program at path, or builds this tree's into dir if path is empty.
func NewProgram(ctx context.Context, path, dir string) (*Program, error) {
	if path == "" {
		var err error
		if path, err = harness.Build(ctx, "", dir); err != nil {
			return nil, err
		}
	}
	p := &Program{path: path, help: map[string]string{}}
	for _, command := range []string{"api", "worker"} {
		out, _, err := harness.Run(ctx, path, command, "--help")
		if err != nil {
			return nil, err
		}
		p.help[command] = out
	}
	return p, nil
}

// IfKnown returns the flag with its value if the command, api or worker, has such a flag:
// the program may be an older one.
func (p *Program) IfKnown(command, flag, value string) []string {
	if !strings.Contains(p.help[command], flag+" ") {
		return nil
	}
	return []string{flag, value}
}
