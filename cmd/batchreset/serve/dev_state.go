package serve

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gofrs/flock"
)

// stateEvery is how often dev looks whether there is something to save.
const stateEvery = 5 * time.Second

// state keeps what an embedded Redis has in a directory, for the next dev. It is no durability: what
// a process that is killed did after the last snapshot is forgotten.
type state struct {
	dir   string
	lock  *flock.Flock
	log   *slog.Logger
	redis embedded

	loaded bool              // was there something of a dev before
	saved  [sha256.Size]byte // what the file has, as lasting sees it
	ready  bool              // does the Redis have all that the file has; before, nothing is saved
	failed bool              // was the last try to save
}

// openState locks the directory, which it makes if it is not there. Nobody else may read it.
func openState(dir string, redis embedded, log *slog.Logger) (*state, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("--state: %w", err)
	}
	s := &state{dir: dir, lock: flock.New(filepath.Join(dir, "lock"), flock.SetPermissions(0o600)), log: log, redis: redis}
	mine, err := s.lock.TryLock()
	switch {
	case err != nil:
		return nil, fmt.Errorf("--state: %w", err)
	case !mine:
		return nil, fmt.Errorf("--state: another dev uses %s; end it, or give this one a directory of its own", dir)
	}
	return s, nil
}

func (s *state) file() string { return filepath.Join(s.dir, "redis.state") }

// load puts what the directory has into the Redis.
func (s *state) load() error {
	content, err := os.ReadFile(s.file())
	if errors.Is(err, fs.ErrNotExist) {
		s.ready = true
		return s.clean()
	}
	if err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	kept, err := decodeSnapshot(content)
	if err == nil {
		err = s.redis.put(kept)
	}
	if err != nil {
		return fmt.Errorf("--state: %s %w; nothing was changed. To begin anew, move it away: mv %[1]s %[1]s.old", s.file(), err)
	}
	if !kept.Ended {
		s.log.Warn("the last dev did not end by itself: what it did after its last snapshot is forgotten, so a reset of then may be done again",
			"snapshot", kept.Taken)
	}
	s.log.Info("state loaded", "file", s.file(), "keys", len(kept.Keys), "snapshot", kept.Taken)
	s.loaded, s.ready = true, true
	return s.clean()
}

// clean removes what a dev that was killed has left of a file that it wrote.
func (s *state) clean() error {
	left, err := filepath.Glob(filepath.Join(s.dir, newStates))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return named("--state", err)
}

// newStates are files that are not yet whole.
const newStates = "redis.state.new-*"

// keep saves what has changed, every stateEvery. It takes at most a twentieth of the time: the Redis
// does nothing else meanwhile.
func (s *state) keep(ctx context.Context) error {
	pause := time.Duration(0) // the first one says that this dev has not ended
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		began := time.Now()
		err := s.save(false)
		switch {
		case err != nil && !s.failed:
			s.log.Warn("the state was not saved; trying again", "error", err)
		case err == nil && s.failed:
			s.log.Info("the state is saved again")
		}
		s.failed = err != nil
		pause = max(stateEvery, 20*time.Since(began))
	}
}

// close saves what there is, at the end of this dev, and lets another one have the directory.
func (s *state) close() (err error) {
	if s.ready {
		err = s.save(true)
	}
	return errors.Join(err, s.lock.Close())
}

// save writes a snapshot if something has changed. The file is as it was, or has all of it.
func (s *state) save(ended bool) error {
	now, err := s.redis.take()
	if err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	now.Ended = ended
	sum := now.lasting()
	if sum == s.saved {
		return nil
	}
	content, err := now.encode()
	if err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	if err := s.write(content); err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	s.saved = sum
	return nil
}

func (s *state) write(content []byte) (err error) {
	f, err := os.CreateTemp(s.dir, newStates) // with the mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), s.file())
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if dir, err := os.Open(s.dir); err == nil { // the new name, too, where a directory can be synced
		_ = dir.Sync()
		_ = dir.Close()
	}
	return nil
}

// lasting is a sum of what a snapshot says that does not pass by itself: signs of life are written every few
// seconds and live for less than a minute, and whatever else happens changes something beside them. The
// time at which a key expires is rounded in the embedded Redis.
func (s snapshot) lasting() (sum [sha256.Size]byte) {
	h := sha256.New()
	add := func(text string) {
		h.Write(strconv.AppendInt(nil, int64(len(text)), 10))
		h.Write([]byte(":" + text))
	}
	add(strconv.FormatBool(s.Ended))
	for _, k := range s.Keys {
		if k.Expires >= 0 && k.Expires < s.Taken.Add(time.Minute).UnixMilli() {
			continue
		}
		add(k.Name)
		add(k.Type)
		add(strconv.FormatInt(k.Expires/10_000, 10))
		add(strconv.Itoa(len(k.Values)))
		for _, value := range k.Values {
			add(value)
		}
	}
	h.Sum(sum[:0])
	return sum
}
