package stack

import (
	"context"
	"errors"
	"time"

	"batchreset/cmd/harness"
)

// Worker is a worker process.
type Worker struct {
	*harness.Process
	Ops string // address of the operators' site
}

// StartWorker starts a worker with default settings but the simulator, whose resets take
// latency, and which does not look afterwards. It does not wait until the worker is up.
func (s *Stack) StartWorker(ctx context.Context, latency time.Duration, flags ...string) (*Worker, error) {
	ops, err := harness.FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	if s.program.IfKnown("worker", "--simulator-look", "") != nil {
		flags = append(flags, "--simulator-look=false")
	}
	p, err := s.start(ctx, "worker", append([]string{
		"--driver", "simulator", "--simulator-latency", latency.String(), "--ops-listen", ops,
	}, flags...)...)
	if err != nil {
		return nil, err
	}
	return &Worker{p, ops}, nil
}

// StartDrivers starts a worker with the drivers of a file. It does not wait until the worker is up.
func (s *Stack) StartDrivers(ctx context.Context, file string, flags ...string) (*Worker, error) {
	ops, err := harness.FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.start(ctx, "worker", append([]string{"--drivers", file, "--ops-listen", ops}, flags...)...)
	if err != nil {
		return nil, err
	}
	return &Worker{p, ops}, nil
}

// WaitHealthy waits until the worker answers on its own address.
func (w *Worker) WaitHealthy(ctx context.Context) error {
	return w.WaitReady(ctx, upLimit, func(ctx context.Context) error {
		return harness.Get(ctx, "http://"+w.Ops+"/healthz")
	})
}

// WaitUp waits until asynq has heard of the worker.
func (s *Stack) WaitUp(ctx context.Context, w *Worker) error {
	return w.WaitReady(ctx, upLimit, func(ctx context.Context) error {
		n, err := s.Redis.Client.ZCard(ctx, "asynq:servers").Result()
		if err == nil && n == 0 {
			err = errors.New("no worker is up")
		}
		return err
	})
}
