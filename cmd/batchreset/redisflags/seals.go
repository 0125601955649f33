package redisflags

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/seal"
)

// Seals say with which keys the secrets in Redis are sealed.
type Seals struct {
	file string
	anew bool
}

// Define defines --secret-key-file.
func (s *Seals) Define(flags *pflag.FlagSet) {
	flags.StringVar(&s.file, "secret-key-file", "", "seal the secrets that Redis keeps (of access keys, webhooks and operators' second factors) with the first key in this `file`, a line that 'openssl rand -base64 32' makes; older keys may follow; give api, worker and commands the same; none: Redis keeps them as they are")
	terminal.Settings(flags, "secret-key-file")
}

// DefineNew defines --new-secret-key, for what seals secrets with them.
func (s *Seals) DefineNew(flags *pflag.FlagSet) {
	flags.BoolVar(&s.anew, "new-secret-key", false, "seal with --secret-key-file although it opens none of the secrets that are sealed in Redis")
	s.Define(flags)
}

// CheckOpens refuses keys that open none of the sealed secrets: what they seal, no api could open.
func (s *Seals) CheckOpens(ctx context.Context, db *redisdb.DB) error {
	if !s.Given() || s.anew {
		return nil
	}
	seen, err := db.Secrets.Look(ctx)
	if err != nil {
		return err
	}
	if seen.Sealed == 0 || len(seen.Unopened) < seen.Sealed {
		return nil
	}
	return terminal.WithCode(terminal.ExitRefused, errors.New("--secret-key-file opens none of the secrets that are sealed in Redis: give the file that api and worker have, or --new-secret-key if they are going to have this one"))
}

// Exposed says so if others than the owner and the group of the file may read it, or the group may change it; else it is empty. Kubernetes
// gives a process the files of its Secrets by its group.
func (s *Seals) Exposed() string {
	return Exposed("secret-key-file", s.file)
}

// Exposed is Seals.Exposed for the file of any flag; an empty name is none.
func Exposed(flag, file string) string {
	info, err := os.Stat(file)
	if file == "" || err != nil {
		return ""
	}
	return exposed(flag, file, info.Mode().Perm())
}

// containerSecrets is where Docker and Podman show a container its secrets. Nobody else sees that folder; the mode is that of the file
// on the host, which cannot be the owner's alone, because the container's user is no user of the host.
const containerSecrets = "/run/secrets/"

func exposed(flag, file string, mode os.FileMode) string {
	if mode&0o027 == 0 || strings.HasPrefix(file, containerSecrets) {
		return ""
	}
	return fmt.Sprintf("--%s: others may read %s (mode %04o): 'chmod 600' keeps it to its owner, 'chmod 640' to its group, too", flag, file, mode)
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
	keys, err := seal.Read(bytes.TrimPrefix(text, []byte("\ufeff"))) // as editors on Windows write it
	if err != nil {
		return nil, terminal.WithCode(terminal.ExitUsage, fmt.Errorf("--secret-key-file: %s %w", s.file, err))
	}
	return keys, nil
}
