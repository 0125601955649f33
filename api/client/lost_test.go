package client

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

func TestALostAnswerStaysUncertainWhateverTheNextTryFinds(t *testing.T) {
	for name, answer := range map[string]string{"nobody": "", "a revoked token": `{"error_code":"APIGW.0307","error_msg":"revoked"}`} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			var s *httptest.Server
			s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if requests.Add(1) == 1 {
					if answer == "" {
						_ = s.Listener.Close()
					}
					panic(http.ErrAbortHandler) // accepted, and the answer lost
				}
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = w.Write([]byte(answer))
			}))
			defer s.Close()
			c, _ := connect(t, s.URL)
			if _, err := c.Submit(t.Context(), Batch{InstanceIDs: []string{"a"}}); !errors.Is(err, ErrUncertain) {
				t.Errorf("said to be certainly not accepted: %v", err)
			}
		})
	}
}
