package harness

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Build builds the batchreset of a source tree into dir and returns the path of the binary.
// source is a folder in the tree; empty: the one where this process runs. flags are for
// 'go build'.
func Build(ctx context.Context, source, dir string, flags ...string) (binary string, err error) {
	binary, err = filepath.Abs(filepath.Join(dir, "batchreset"))
	if err != nil {
		return "", err
	}
	args := append([]string{"build", "-o", binary}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "batchreset/cmd/batchreset")...)
	cmd.Dir = source
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build batchreset: %w\n%s", err, out)
	}
	return binary, nil
}

// Run runs a command of a binary to its end and returns what it has written. An error
// contains what it has written to its standard error.
func Run(ctx context.Context, binary string, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("batchreset %s: %w: %s", strings.Join(args, " "), err, &errs)
	}
	return out.String(), errs.String(), err
}

// Get returns an error unless a GET of the URL is answered with 200 within five seconds.
func Get(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Close = true // nobody comes back on this connection
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	_ = response.Body.Close() // the status is what counts
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}
