package execdriver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"batchreset/worker"
)

// A program that takes long to start, from a disk that hangs, holds up the others.
func TestNothingIsStartedThatWasAllowedLongAgo(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ran")
	d, _ := open(t, Config{}, `echo >`+file)
	s := d.(*program).spawner
	s.first.Do(func() { s.done.Go(s.thread) })
	hangs := func() (ends func()) {
		began, end := make(chan struct{}), make(chan struct{})
		s.work <- func() { close(began); <-end }
		<-began
		return func() { close(end) }
	}

	t.Run("its attempt ends meanwhile", func(t *testing.T) {
		ends := hangs()
		defer ends()
		ctx, cancel := context.WithCancel(limited(t))
		a := attempt()
		a.MaySend = func() error { time.AfterFunc(10*time.Millisecond, cancel); return nil }
		wantVerdict(t, d.Reset(ctx, a), worker.NotSent)
	})
	t.Run("it is not allowed any more", func(t *testing.T) {
		s.fresh = time.Millisecond
		ends := hangs()
		asked := 0
		a := attempt()
		a.MaySend = func() error {
			if asked++; asked > 1 {
				return errors.New("halted")
			}
			time.AfterFunc(50*time.Millisecond, ends)
			return nil
		}
		wantVerdict(t, d.Reset(limited(t), a), worker.NotSent)
	})
	if _, err := os.Stat(file); err == nil {
		t.Error("it was started")
	}
}
