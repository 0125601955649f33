package call

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal"
)

func TestTimeout(t *testing.T) {
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else nobody notices that the caller has gone
		<-r.Context().Done()
	}))
	t.Cleanup(hanging.Close)
	for _, args := range []string{"status " + job1, "watch " + job1, "jobs", "cancel " + job1, "cancel --all", "retry " + job1, "submit phone-1 --wait", "submit phone-1 --dry-run"} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			r := callCommand(t.Context(), nil, append(strings.Fields(args), "--timeout", "50ms", "--server", hanging.URL, "--token", "a")...)
			if r.Says(t, "--timeout 50ms is over"); r.Code != terminal.ExitTimeout {
				t.Errorf("exit code %d: %s", r.Code, r.Said)
			}
		})
	}
	t.Run("ends the waiting for jobs that go on", func(t *testing.T) {
		t.Parallel()
		s := newFakeService(t)
		s.Looks = 1_000_000
		result := filepath.Join(t.TempDir(), "r.csv")
		r := s.call(t, "submit", "phone-1", "--result", result, "--timeout", "1500ms")
		r.Wants(t, terminal.ExitTimeout, job1+"\n", "--timeout 1.5s is over; the jobs go on; 'batchreset watch "+job1+"' follows them, 'batchreset cancel "+job1+"'")
		if rows, err := readResult(result); err != nil || len(rows) != 1 || rows[0].State != "running" {
			t.Errorf("%v, %v", rows, err)
		}
	})
	t.Run("does not hide what was known in time", func(t *testing.T) {
		t.Parallel()
		s := newFakeService(t)
		s.call(t, "submit", "failed-1", "--wait", "--timeout", "1h").Wants(t, terminal.ExitSome, job1+"\n", "1 failed")
	})
}
