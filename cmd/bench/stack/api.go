package stack

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"batchreset/cmd/harness"
)

// API is an api process.
type API struct {
	*harness.Process
	Addr string // of the public API
	Ops  string // address of the operators' site
}

// StartAPI starts an api with default settings but an open fleet, and without a bound that
// the load would meet: requests and instances are counted as they are by default. It
// returns when the api is ready.
func (s *Stack) StartAPI(ctx context.Context, flags ...string) (*API, error) {
	addr, err := harness.FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	ops, err := harness.FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	const most = "1000000000"
	if _, _, err := harness.Run(ctx, s.program.path, "tenant", "limit", "--redis", s.url, "--all",
		"--requests-per-second", most, "--open-instances", most); err != nil {
		return nil, err
	}
	p, err := s.start(ctx, "api", append([]string{"--listen", addr, "--ops-listen", ops, "--fleet", "open", "--max-backlog", "0"}, flags...)...)
	if err != nil {
		return nil, err
	}
	return &API{p, addr, ops}, p.WaitReady(ctx, upLimit, func(ctx context.Context) error {
		return harness.Get(ctx, "http://"+addr+"/readyz")
	})
}

// StartTenant starts an api, as StartAPI does, and makes a token of the tenant "bench".
func (s *Stack) StartTenant(ctx context.Context, flags ...string) (a *API, token string, err error) {
	if token, err = s.Token(ctx, "bench"); err != nil {
		return nil, "", err
	}
	a, err = s.StartAPI(ctx, flags...)
	return a, token, err
}

// Usage is what an api uses.
type Usage struct {
	Waiters    int // requests that wait for the end of a job
	Goroutines int
	Memory     int64 // resident bytes
}

// Usage reads from the metrics what the api uses now.
func (a *API) Usage(ctx context.Context) (u Usage, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.Ops+"/metrics", nil)
	if err != nil {
		return u, err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return u, err
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return u, err
	}
	return parseUsage(string(text))
}

func parseUsage(metrics string) (u Usage, err error) {
	for line := range strings.Lines(metrics) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		value, _ := strconv.ParseFloat(text, 64) // comments have none
		switch {
		case strings.HasPrefix(name, "batchreset_waiting_requests{"):
			u.Waiters += int(value)
		case name == "go_goroutines":
			u.Goroutines = int(value)
		case name == "process_resident_memory_bytes":
			u.Memory = int64(value)
		}
	}
	if u.Goroutines == 0 || u.Memory == 0 {
		return u, errors.New("the metrics do not say how many goroutines there are, or how much memory")
	}
	return u, nil
}
