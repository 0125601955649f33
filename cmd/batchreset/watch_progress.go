package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"batchreset/api/client"
)

// linesEvery is how often progress is told where there is no terminal.
const linesEvery = 2 * time.Second

// tally is the latest record of each job that is followed.
type tally struct {
	mu   sync.Mutex
	jobs map[string]client.Job
}

func newTally(jobs []client.Job) *tally {
	t := &tally{jobs: map[string]client.Job{}}
	for _, job := range jobs {
		t.jobs[job.ID] = job
	}
	return t
}

// update takes a newer record of a job and returns the state of the one before.
func (t *tally) update(id string, job client.Job) (before string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before = t.jobs[id].State
	t.jobs[id] = job
	return before
}

func (t *tally) job(id string) client.Job {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.jobs[id]
}

func (t *tally) sum() (total int, counts client.Counts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return sum(slices.Collect(maps.Values(t.jobs)))
}

// showProgress shows on n how far the jobs of t are, until stop is called: as a
// bar on a terminal, else as a line now and then. changed is to be called after
// each update.
func showProgress(n *notices, t *tally) (changed, stop func()) {
	if f, ok := n.w.(*os.File); ok {
		// Only a terminal has a size; one that does not know its own cannot show a bar.
		if width, height, err := term.GetSize(int(f.Fd())); err == nil && width > 0 && height > 0 {
			return showBar(n, t)
		}
	}
	return showLines(n, t)
}

func showBar(n *notices, t *tally, options ...mpb.ContainerOption) (changed, stop func()) {
	container := mpb.New(append(options, mpb.WithOutput(n.w))...)
	bar := container.AddBar(0,
		mpb.BarWidth(30),
		mpb.PrependDecorators(decor.CountersNoUnit("%d of %d, "), decor.Elapsed(decor.ET_STYLE_GO)),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			_, counts := t.sum()
			return " " + countsInWords(counts)
		})),
	)
	restore := n.redirect(container)
	changed = func() {
		total, counts := t.sum()
		bar.SetTotal(int64(total), false)
		bar.SetCurrent(int64(ended(counts)))
	}
	changed()
	return changed, func() {
		changed()
		restore()
		bar.Abort(false) // there is no more to come, whether all has ended or not
		container.Wait()
	}
}

func showLines(w io.Writer, t *tally) (changed, stop func()) {
	news, done := make(chan struct{}, 1), make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		var last string
		for {
			select {
			case <-news:
			case <-done:
				return
			}
			if total, counts := t.sum(); total > 0 {
				line := fmt.Sprintf("%d of %d ended: %s", ended(counts), total, countsInWords(counts))
				if line == last {
					continue
				}
				last = line
				fmt.Fprintln(w, line)
			}
			select { // what changes meanwhile waits in news
			case <-time.After(linesEvery):
			case <-done:
				return
			}
		}
	})
	changed = func() {
		select {
		case news <- struct{}{}:
		default:
		}
	}
	return changed, func() {
		close(done)
		running.Wait()
	}
}
