package call

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"batchreset/api/client"
	"batchreset/tasks"
)

// linesEvery is how often progress is told where there is no terminal.
const linesEvery = 2 * time.Second

// tally is the latest record of each job that is followed, and their sum.
type tally struct {
	mu     sync.Mutex
	jobs   map[string]client.Job
	total  int
	counts client.Counts
	pace   pace
}

func newTally(jobs []client.Job) *tally {
	t := &tally{jobs: map[string]client.Job{}}
	for _, job := range jobs {
		t.update(job)
	}
	return t
}

// update takes a newer record of a job and returns the state of the one before.
func (t *tally) update(job client.Job) (before string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.jobs[job.ID]
	if len(job.Items) == 0 {
		job.Items = old.Items // a list has the counts alone
	}
	t.jobs[job.ID] = job
	t.total += job.Total - old.Total
	addCounts(&t.counts, old.Counts, -1)
	addCounts(&t.counts, job.Counts, 1)
	return old.State
}

// all returns the latest records of those jobs that there is one of, in their order.
func (t *tally) all(jobs []client.Job) (latest []client.Job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, job := range jobs {
		if job = t.jobs[job.ID]; job.Record != nil {
			latest = append(latest, job)
		}
	}
	return latest
}

// progress returns how many instances have ended, of how many, and all that is known in
// words of the same moment: how many they are, their states and, if they are known, the
// pace and the time that is left. Nothing is said while nothing is known.
func (t *tally) progress() (done, total int, line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	done, total = ended(t.counts), t.total
	line = fmt.Sprintf("%d of %d ended: %s", done, total, countsInWords(t.counts))
	if total == 0 {
		return 0, 0, ""
	}
	if pace := t.pace.text(time.Now(), done, total); pace != "" {
		line += "; " + pace
	}
	if why := t.held(); why != "" {
		line += "; some wait: " + why
	}
	return done, total, line
}

// held says why instances wait that could begin.
func (t *tally) held() string {
	var reasons []string
	for _, job := range t.jobs {
		if why := tasks.Visible(job.Held.Reason); why != "" && !job.Final() && !slices.Contains(reasons, why) {
			reasons = append(reasons, why)
		}
	}
	slices.Sort(reasons)
	return strings.Join(reasons, "; ")
}

func (t *tally) line() string {
	_, _, line := t.progress()
	return line
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
	return showLines(n, t.line)
}

func showBar(n *notices, t *tally, options ...mpb.ContainerOption) (changed, stop func()) {
	container := mpb.New(append(options, mpb.WithOutput(n.w))...)
	bar := container.AddBar(0,
		mpb.BarWidth(30),
		mpb.PrependDecorators(decor.Elapsed(decor.ET_STYLE_GO)),
		// All numbers in one decorator: two are not asked at the same moment.
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + t.line() })),
	)
	restore := n.redirect(container)
	changed = func() {
		done, total, _ := t.progress()
		bar.SetTotal(int64(total), false)
		bar.SetCurrent(int64(done))
	}
	changed()
	return changed, func() {
		changed()
		restore()
		bar.Abort(false) // there is no more to come, whether all has ended or not
		container.Wait()
	}
}

// showLines writes what text says now and then, if it is something new, after changed
// was called and until stop is, and at the end.
func showLines(w io.Writer, text func() string) (changed, stop func()) {
	news, done := make(chan struct{}, 1), make(chan struct{})
	last := ""
	show := func() bool {
		line := text()
		if line == last {
			return false
		}
		last = line
		fmt.Fprintln(w, line)
		return true
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-news:
			case <-done:
				return
			}
			if !show() {
				continue
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
		show()
	}
}

// paceOver is the time over which the pace is measured: long enough to be steady, short
// enough to follow the workers.
const paceOver = 30 * time.Second

// pace measures how fast instances end.
type pace struct{ samples []sample }

type sample struct {
	at    time.Time
	ended int
}

// text tells the pace and the time that is left, or nothing until they are known.
func (p *pace) text(now time.Time, ended, total int) string {
	if n := len(p.samples); n == 0 || now.Sub(p.samples[n-1].at) >= time.Second {
		p.samples = append(p.samples, sample{now, ended})
	}
	for len(p.samples) > 1 && now.Sub(p.samples[0].at) > paceOver {
		p.samples = p.samples[1:]
	}
	first := p.samples[0]
	took, done := now.Sub(first.at), ended-first.ended
	if took < 2*time.Second || done <= 0 || ended == total {
		return ""
	}
	perSecond := float64(done) / took.Seconds()
	left := time.Duration(float64(total-ended) / perSecond * float64(time.Second))
	return fmt.Sprintf("%.3g/s, about %s to go", perSecond, left.Round(time.Second))
}
