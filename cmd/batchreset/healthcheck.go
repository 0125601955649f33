package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// newHealthcheckCommand serves container images that have no shell and no curl.
func newHealthcheckCommand() *cobra.Command {
	var url string
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a process on this machine whether it is alive",
		Long: `Asks the operators' listener of a process for /healthz and exits 0 if it answers.
For health checks in containers.`,
		Example: "  batchreset healthcheck --url http://127.0.0.1:9091/healthz",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 3*time.Second)
			defer cancel()
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return fmt.Errorf("--url: %w", err)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return withCode(exitAway, err)
			}
			_ = response.Body.Close() // the status is all that matters
			if response.StatusCode != http.StatusOK {
				return withCode(exitStatus(response.StatusCode), fmt.Errorf("%s answered %s", url, response.Status))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&url, "url", "http://127.0.0.1:9090/healthz", "where to ask")
	return cmd
}
