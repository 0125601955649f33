package stack

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"batchreset/cmd/harness"
)

// Login makes an operator and logs in to the site of a process, at its address ops. It
// returns the session's cookie, which every process on the same Redis knows.
func (s *Stack) Login(ctx context.Context, ops string) (*http.Cookie, error) {
	const name = "bench"
	password := rand.Text()
	file := filepath.Join(s.dir, "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		return nil, err
	}
	if _, _, err := harness.Run(ctx, s.program.path, "operator", "add", name, "--role", "operator",
		"--redis", s.Redis.URL(), "--password-file", file); err != nil {
		return nil, err
	}
	form := url.Values{"name": {name}, "password": {password}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+ops+"/login", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultTransport.RoundTrip(r) // which follows no redirect
	if err != nil {
		return nil, err
	}
	_ = response.Body.Close()
	for _, c := range response.Cookies() {
		if c.Name == "__Host-batchreset" {
			return c, nil
		}
	}
	return nil, errors.New("log in to the operators' site: " + response.Status)
}
