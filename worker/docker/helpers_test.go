package docker

import (
	"archive/tar"
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	"batchreset/worker"
)

// trip is a round trip of a test.
type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// mustFail makes sure that an attempt ended with this verdict, and that its message has this text.
func mustFail(t *testing.T, err error, want worker.Verdict, text string) *worker.DriverError {
	t.Helper()
	e, ok := errors.AsType[*worker.DriverError](err)
	if !ok || e.Verdict != want || !strings.Contains(e.Message, text) {
		t.Fatalf("the attempt ended with %v; want %s: …%s…", err, want, text)
	}
	return e
}

// rootOf is the archive of an image's files, with one program under several names.
func rootOf(program []byte) ([]byte, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	entries := []*tar.Header{
		{Name: "init", Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(program))},
		{Name: "data/", Mode: 0o755, Typeflag: tar.TypeDir},
		{Name: "system/bin/", Mode: 0o755, Typeflag: tar.TypeDir},
	}
	for _, name := range []string{"getprop", "find", "healthy", "boot"} {
		entries = append(entries, &tar.Header{Name: "system/bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "/init"})
	}
	for _, entry := range entries {
		if err := w.WriteHeader(entry); err != nil {
			return nil, err
		}
		if entry.Size > 0 {
			if _, err := w.Write(program); err != nil {
				return nil, err
			}
		}
	}
	return archive.Bytes(), w.Close()
}
