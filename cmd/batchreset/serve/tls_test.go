package serve

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"batchreset/api/tlsfiles"
	"batchreset/cmd/harness/certs"
)

func TestAKeyThatOthersMayReadIsTold(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no such modes")
	}
	authority, err := certs.NewAuthority(certs.Subject{})
	if err != nil {
		t.Fatal(err)
	}
	files := tlsfiles.Files{Cert: filepath.Join(t.TempDir(), "crt"), Key: filepath.Join(t.TempDir(), "key")}
	if err := authority.Write(files.Cert, files.Key); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true} {
		if err := os.Chmod(files.Key, mode); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		p := &process{log: slog.New(slog.NewTextHandler(&log, nil)), ops: opsFlags{tls: tlsFlags{files}}}
		if err := p.openCertificates(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "others may read the key"); got != want {
			t.Errorf("mode %o: %s", mode, &log)
		}
	}
}
