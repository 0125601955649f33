package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/stack"
)

// profileLasts is how long a CPU profile is taken; pprof counts in whole seconds.
const profileLasts = 2 * time.Second

// profileSize is how many instances keep a process busy for a profile, and a bit longer.
func profileSize(perSecond float64) int {
	return int(perSecond * (profileLasts + time.Second).Seconds())
}

// profileSubmit profiles an api under load.
func (s *stage) profileSubmit(ctx context.Context) error {
	if err := s.Clear(ctx); err != nil {
		return err
	}
	a, token, err := s.StartTenant(ctx)
	if err != nil {
		return err
	}
	defer a.Kill()
	session, err := s.Login(ctx, a.Ops)
	if err != nil {
		return err
	}
	return s.profiled(ctx, "submit", "api", a.Ops, session, profileSize(s.submitRate), func(n int) error {
		_, err := load.Submit(ctx, a.Addr, token, n)
		return err
	})
}

// profileDrain profiles a worker under load.
func (s *stage) profileDrain(ctx context.Context, perSecond float64) error {
	if err := s.Clear(ctx); err != nil {
		return err
	}
	n := profileSize(perSecond)
	session, err := s.fillAndLogIn(ctx, n)
	if err != nil {
		return err
	}
	w, err := s.StartWorker(ctx, 0)
	if err != nil {
		return err
	}
	defer w.Kill()
	if err := w.WaitHealthy(ctx); err != nil {
		return err
	}
	return s.profiled(ctx, "drain", "worker", w.Ops, session, n, func(n int) error {
		_, err := s.Redis.Drained(ctx, n, w.Process)
		return err
	})
}

// fillAndLogIn is fill, and makes a session.
func (s *stage) fillAndLogIn(ctx context.Context, n int) (*http.Cookie, error) {
	a, token, err := s.StartTenant(ctx)
	if err != nil {
		return nil, err
	}
	defer a.Kill()
	if _, err := load.Submit(ctx, a.Addr, token, n); err != nil {
		return nil, err
	}
	return s.Login(ctx, a.Ops)
}

// profiled does the work on n instances while a CPU profile of the process is saved, and
// keeps what each command has cost Redis per instance for the end of the output.
func (s *stage) profiled(ctx context.Context, name, process, ops string, session *http.Cookie, n int, work func(n int) error) error {
	if err := s.Redis.Client.ConfigResetStat(ctx).Err(); err != nil {
		return err
	}
	file := filepath.Join(s.profile, name+"-"+process+".cpu.pprof")
	saved := make(chan error, 1)
	go func() {
		url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%.0f", ops, profileLasts.Seconds())
		saved <- download(ctx, url, session, file)
	}()
	err := work(n)
	costs, statsErr := s.Redis.Commands(ctx)
	if err := errors.Join(err, statsErr, <-saved); err != nil {
		return err
	}
	s.extras = append(s.extras, fmt.Sprintf("Redis commands of %s, %d instances (CPU profile of the %s: %s)\n%s",
		name, n, process, file, stack.CommandTable(costs, n)))
	return nil
}

// download saves what a URL answers in a file.
func download(ctx context.Context, url string, session *http.Cookie, file string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.AddCookie(session)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, response.Body)
	return errors.Join(err, f.Close())
}
