package redisflags

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/seal"
)

// Seals say with which keys the secrets in Redis are sealed.
type Seals struct{ file string }

// Define defines --secret-key-file.
func (s *Seals) Define(flags *pflag.FlagSet) {
	flags.StringVar(&s.file, "secret-key-file", "", "seal the secrets that Redis keeps (of access keys, webhooks and operators' second factors) with the first key in this `file`, a line that 'openssl rand -base64 32' makes; older keys may follow; give api, worker and commands the same; none: Redis keeps them as they are")
}

// Given reports whether there are such keys.
func (s *Seals) Given() bool { return s.file != "" }

// Read reads the keys of the file; nil without one.
func (s *Seals) Read() (*seal.Keys, error) {
	if s.file == "" {
		return nil, nil //nolint:nilnil // nil Keys seal nothing
	}
	text, err := os.ReadFile(s.file)
	if err != nil {
		return nil, terminal.WithCode(terminal.ExitUsage, fmt.Errorf("--secret-key-file: %w", err))
	}
	keys, err := seal.Read(text)
	if err != nil {
		return nil, terminal.WithCode(terminal.ExitUsage, fmt.Errorf("--secret-key-file: %s %w", s.file, err))
	}
	return keys, nil
}
