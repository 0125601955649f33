package ops

import (
	"fmt"
	"math/bits"
	"strconv"

	"batchreset/tasks"
)

// wave is one wave of a run's round, or several that are shown as one.
type wave struct {
	First, Last int // 0 = the canary
	Size, Ended int // instances
	State       waveState
}

// waveState says where a wave stands; it is a class of the page, too.
type waveState string

const (
	waveDone  waveState = "done"
	waveNow   waveState = "now"
	waveLater waveState = "later"
	waveNever waveState = "never" // the run has ended before
)

// wavesNear is how many waves before and after that which is under way have a place of their own: a run may have thousands.
const wavesNear = 3

// wavesOf are the waves of a run's round. It is empty if there is but one, and for a run of which nothing can begin
// any more that has never begun.
func wavesOf(run tasks.Run) (waves []wave) {
	sizes := run.Waves(run.Total - run.Before.Total())
	if sizes[0] == 0 || len(sizes) == 1 || run.Over() && run.Next == 0 {
		return nil
	}
	made := run.Closed.Total()
	for _, size := range run.Open {
		made += size
	}
	ended := min(run.Counts.Total()-run.Counts.Open(), made) - run.Before.Total()
	folded := false // the wave before has no place of its own
	for n, size := range sizes {
		w := wave{First: n, Last: n, Size: size, Ended: min(ended, size), State: waveStateOf(run, n)}
		ended -= w.Ended
		fold := n > 0 && n < len(sizes)-1 && max(n-run.Wave, run.Wave-n) > wavesNear
		if last := len(waves) - 1; fold && folded {
			waves[last].Last, waves[last].Size, waves[last].Ended = n, waves[last].Size+size, waves[last].Ended+w.Ended
		} else {
			waves = append(waves, w)
		}
		folded = fold
	}
	return waves
}

func waveStateOf(run tasks.Run, n int) waveState {
	begun := run.Next > run.FirstPart() && n <= run.Wave
	switch {
	case begun && (n < run.Wave || run.State.Final()):
		return waveDone
	case begun:
		return waveNow
	case run.State.Final() || run.Over():
		return waveNever
	}
	return waveLater
}

// Name is what people call it.
func (w wave) Name() string {
	switch {
	case w.Last == 0:
		return "Canary"
	case w.First == w.Last:
		return "Wave " + strconv.Itoa(w.First)
	}
	return fmt.Sprintf("Waves %d to %d", w.First, w.Last)
}

// Width is from 1 to 8: a wave that is twice as large is one step wider, so that a canary of ten is seen beside thousands.
func (w wave) Width() int { return max(1, min(8, bits.Len64(uint64(w.Size))/2)) }

// share is a part of a bar: instances in one state.
type share struct {
	State    tasks.ItemState
	Count    int
	X, Width int // of barLength
}

const (
	barLength = 1000
	// minShare is how wide the smallest number is: what is not nothing is seen.
	minShare = 6
)

// barStates are item states in the order of a bar: what has ended comes first.
var barStates = []tasks.ItemState{
	tasks.ItemSucceeded, tasks.ItemFailed, tasks.ItemUnknown, tasks.ItemCancelled, tasks.ItemRunning, tasks.ItemRetrying, tasks.ItemPending,
}

// sharesOf are the shares of the states that there are.
func sharesOf(counts tasks.Counts) (shares []share) {
	total, widest, rest := counts.Total(), 0, barLength
	for _, state := range barStates {
		n := counts.In([]tasks.ItemState{state})
		if n == 0 {
			continue
		}
		width := max(minShare, n*barLength/total)
		rest -= width
		if shares = append(shares, share{State: state, Count: n, Width: width}); width > shares[widest].Width {
			widest = len(shares) - 1
		}
	}
	x := 0
	for i := range shares {
		if i == widest { // it makes up for what was added and rounded
			shares[i].Width += rest
		}
		shares[i].X = x
		x += shares[i].Width
	}
	return shares
}
