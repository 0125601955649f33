package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// TestStatusOfEveryCode is the error table of the contract.
func TestStatusOfEveryCode(t *testing.T) {
	for code, want := range map[tasks.Code]int{
		"KOOPHONE.API.1000": 400,
		"KOOPHONE.API.1001": 400,
		"APIGW.0301":        401,
		"APIGW.0307":        401,
		"APIGW.0302":        403,
		"RESET.0004":        403,
		"APIGW.0101":        404,
		"RESET.0001":        404,
		"RESET.0003":        409,
		"APIGW.0201":        413,
		"RESET.0002":        422,
		"APIGW.0308":        429,
		"KOOPHONE.API.9999": 500,
	} {
		t.Run(string(code), func(t *testing.T) {
			err := fmt.Errorf("wrapped: %w", tasks.Errorf(code, "a message"))
			status, e := answerTo(err)
			if status != want || e.Code != code || e.Message != "a message" {
				t.Errorf("answers %d %s %q", status, e.Code, e.Message)
			}
		})
	}
}

func TestOtherErrorsAreInternalAndTellNothing(t *testing.T) {
	for _, err := range []error{
		errors.New("dial tcp 10.0.0.1:6379"),
		tasks.JobGone,
		tasks.Errorf("RESET.9999", "no such code"),
		echo.NewHTTPError(http.StatusTeapot, "secret"),
	} {
		status, e := answerTo(err)
		if status != http.StatusInternalServerError || e.Code != tasks.Internal || e.Message != "internal error" {
			t.Errorf("%v answers %d %s %q", err, status, e.Code, e.Message)
		}
	}
}

func TestRetryAfterIsAlwaysSetOn429(t *testing.T) {
	for delay, want := range map[time.Duration]string{0: "1", 90 * time.Second: "90"} {
		e := echo.New()
		s := &server{log: slog.New(slog.DiscardHandler)}
		w := httptest.NewRecorder()
		c := e.NewContext(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), w)
		s.fail(&tasks.Error{Code: tasks.TooManyRequests, Message: "slow down", RetryAfter: delay}, c)
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != want {
			t.Errorf("%s: %d, Retry-After %q", delay, w.Code, w.Header().Get("Retry-After"))
		}
	}
}

func TestLogsAndPanics(t *testing.T) {
	var log strings.Builder
	s := New(Config{}, Store{Tokens: panickingTokens{}}, slog.New(slog.NewTextHandler(&log, nil)))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/jobs", nil)
	r.Header.Set("X-Auth-Token", "the-secret")
	r.Header.Set("X-Request-Id", "trace-42")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "cheese") {
		t.Errorf("a panic answers %d %s", w.Code, w.Body)
	}
	for _, want := range []string{"out of cheese", "request_id=trace-42", "status=500", "code=KOOPHONE.API.9999", "path=/v1/jobs"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "the-secret") {
		t.Error("the token is in the log")
	}
}

type panickingTokens struct{ Tokens }

func (panickingTokens) Token(context.Context, string) (tasks.Token, error) { panic("out of cheese") }
