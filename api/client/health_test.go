package client

import (
	"errors"
	"net/http"
	"testing"
	"time"
)

func TestHealth(t *testing.T) {
	ago := func(d time.Duration) map[string]string {
		return map[string]string{"Date": time.Now().Add(-d).UTC().Format(http.TimeFormat)}
	}
	t.Run("tells the version and the clock", func(t *testing.T) {
		for ahead, header := range map[time.Duration]map[string]string{0: ago(0), time.Hour: ago(time.Hour), -time.Hour: ago(-time.Hour)} {
			s := serve(t, step{header: header, body: okay(`{"version":"v1.2.3"}`)})
			c, _ := connect(t, s.URL)
			h, err := c.Health(t.Context())
			if err != nil || h.Version != "v1.2.3" || !h.Dated || (h.Ahead-ahead).Abs() > h.Doubt+time.Second || h.TLS != nil || h.Took <= 0 {
				t.Errorf("%s ahead: %+v, %v", ahead, h, err)
			}
		}
	})
	t.Run("asks once", func(t *testing.T) {
		for _, answer := range []step{{cut: true}, {status: 502, body: "<html>"}} {
			s := serve(t, answer)
			c, _ := connect(t, s.URL)
			_, err := c.Health(t.Context())
			_, notReady := c.Accepting(t.Context())
			if err == nil || notReady == nil || s.seen() != 2 && !answer.cut {
				t.Errorf("%v, %v after %d requests", err, notReady, s.seen())
			}
		}
	})
	t.Run("tells whether there is room", func(t *testing.T) {
		s := serve(t, step{body: okay(`{"accepting":true}`)}, step{body: okay(`{"accepting":false}`)}, step{status: 500, body: `{"error_code":"KOOPHONE.API.9999","error_msg":"Redis does not answer"}`})
		c, _ := connect(t, s.URL)
		for _, want := range []bool{true, false} {
			if accepting, err := c.Accepting(t.Context()); err != nil || accepting != want {
				t.Errorf("%v, %v, want %v", accepting, err, want)
			}
		}
		_, err := c.Accepting(t.Context())
		if e, answered := errors.AsType[*Error](err); !answered || e.Message != "Redis does not answer" {
			t.Errorf("%v", err)
		}
	})
}
