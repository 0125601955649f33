package api_test

import (
	"net/http"
	"strings"
	"testing"

	"batchreset/api"
	"batchreset/tasks"
)

// However many of one tenant wait, there is room for another one.
func TestNoTenantTakesAllTheRoomToWait(t *testing.T) {
	l := newLiveWith(t, api.Config{AllowUnregistered: true, MaxWaiters: 12})
	streams := func(tenant, job string, n int) (open, refused int) {
		t.Helper()
		for range n {
			r := l.getAs(t, tenant, "/v1/jobs/"+job+"/events")
			t.Cleanup(func() { _ = r.Body.Close() })
			switch r.StatusCode {
			case http.StatusOK:
				open++
			case http.StatusTooManyRequests:
				refused++
				if r.Header.Get("Retry-After") == "" {
					t.Error("429 without Retry-After")
				}
			default:
				t.Errorf("status %d", r.StatusCode)
			}
		}
		return open, refused
	}
	acme := l.submit(t, "phone-1")
	if open, refused := streams("acme", acme, 50); open != 6 || refused != 44 {
		t.Errorf("alone: %d streams, %d refused; want half of 12", open, refused)
	}
	body := strings.NewReader(`{"instance_ids":["phone-2"]}`)
	other := strings.TrimPrefix(l.do(t, http.MethodPost, batchReset, "other", body).header.Get("Location"), "/v1/jobs/")
	if open, _ := streams("other", other, 50); open != 3 {
		t.Errorf("another one: %d streams, want as many as are left free", open)
	}
	if got := l.do(t, http.MethodGet, "/v1/jobs/"+acme+"/events", "acme", nil); got.Code != tasks.TooManyRequests {
		t.Errorf("one more: %s", got.Code)
	}
}
