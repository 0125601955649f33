package redisflags

import (
	"os"
	"testing"
)

func TestWhichModesExposeAFile(t *testing.T) {
	for _, row := range []struct {
		file string
		mode os.FileMode
		want bool
	}{
		{"/etc/batchreset/secret-key", 0o600, false},
		{"/etc/batchreset/secret-key", 0o640, false},
		{"/etc/batchreset/secret-key", 0o644, true},
		{"/etc/batchreset/secret-key", 0o660, true},
		{"secrets/secret-key", 0o444, true},
		{"/run/secrets/secret-key", 0o644, false}, // as docker-compose.yml gives it to api and worker
		{"/run/secrets-of-mine", 0o644, true},
	} {
		if got := exposed("secret-key-file", row.file, row.mode); (got != "") != row.want {
			t.Errorf("%s, mode %o: %q", row.file, row.mode, got)
		}
	}
}
