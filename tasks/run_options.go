package tasks

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of the options of a run.
const (
	DefaultMaxParallel = 3200
	DefaultGrowth      = 2.0
	MaxGrowth          = 1000
	// MaxSoak is how long a run may wait after its canary.
	MaxSoak = 7 * 24 * time.Hour
	// partSize is how many instances a part of a run has at most: it becomes one job.
	partSize = DefaultMaxInstances
	// budgetFrom is how many instances must have ended before a budget in percent counts.
	budgetFrom = 20
)

// Budget is how many instances may fail, or end as unknown, before a run pauses: a number, or
// a percentage of those that have ended. The zero Budget is none.
type Budget struct {
	text    string // "" = none
	number  int
	percent float64
}

// ParseBudget reads a whole number from 0 on, or a percentage from 0% to 100%; "" is none.
func ParseBudget(text string) (Budget, error) {
	b := Budget{text: text}
	var err error
	digits, percentage := strings.CutSuffix(text, "%")
	switch {
	case text == "":
		return b, nil
	case percentage:
		b.percent, err = strconv.ParseFloat(digits, 64)
		if err != nil || strings.Trim(digits, "0123456789.") != "" || b.percent > 100 {
			return Budget{}, fmt.Errorf(`must be a whole number or a percentage from "0%%" to "100%%", not %.80q`, text)
		}
	default:
		b.number, err = strconv.Atoi(text)
		if err != nil || b.number < 0 || b.number > MaxLimit {
			return Budget{}, fmt.Errorf(`must be a whole number from 0 to %d, or a percentage such as "2%%", not %.80q`, MaxLimit, text)
		}
	}
	return b, nil
}

// String is what ParseBudget reads.
func (b Budget) String() string { return b.text }

// IsZero reports whether there is no budget.
func (b Budget) IsZero() bool { return b.text == "" }

// Exceeded reports whether so many failed or unknown instances, of those that have ended, are too many.
func (b Budget) Exceeded(failures, ended int) bool {
	switch {
	case b.text == "":
		return false
	case strings.HasSuffix(b.text, "%"):
		return ended >= budgetFrom && float64(failures)*100 > b.percent*float64(ended)
	}
	return failures > b.number
}

// MarshalJSON writes a number, or a string with a percentage.
func (b Budget) MarshalJSON() ([]byte, error) {
	if strings.HasSuffix(b.text, "%") {
		return json.Marshal(b.text)
	}
	return json.Marshal(b.number)
}

// Duration is a time span on the wire, such as "30s".
type Duration time.Duration

// MarshalText writes it as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// RunOptions say how a run goes on.
type RunOptions struct {
	MaxParallel int `json:"max_parallel"` // instances that may be open at a time
	// Canary is how many instances go first; all of them must succeed. 0 = none.
	Canary int      `json:"canary,omitempty"`
	Soak   Duration `json:"soak,omitzero"` // after the canary
	// Growth is the factor by which each wave after the canary is larger; 0 without a canary.
	Growth      float64 `json:"growth,omitempty"`
	MaxFailures Budget  `json:"max_failures,omitzero"`
}

// Check returns a sentence that names the option that is wrong, or nil. total is how many
// instances there are.
func (o RunOptions) Check(total int) error {
	switch {
	case o.MaxParallel < 1 || o.MaxParallel > MaxLimit:
		return fmt.Errorf("max_parallel must be from 1 to %d", MaxLimit)
	case o.Canary < 0:
		return fmt.Errorf("canary must not be negative")
	case o.Canary > total:
		return fmt.Errorf("canary is %d, and the list has %d", o.Canary, total)
	case o.Soak < 0 || time.Duration(o.Soak) > MaxSoak:
		return fmt.Errorf("soak must be from 0s to %d days", MaxSoak/(24*time.Hour))
	case o.Soak > 0 && time.Duration(o.Soak) < time.Millisecond: // which the record would forget
		return fmt.Errorf("soak must be 0s, or at least 1ms")
	case o.Canary == 0 && o.Soak > 0:
		return fmt.Errorf("soak needs a canary")
	case o.Canary == 0 && o.Growth != 0:
		return fmt.Errorf("growth needs a canary")
	case o.Canary > 0 && (math.IsNaN(o.Growth) || o.Growth < 1 || o.Growth > MaxGrowth):
		return fmt.Errorf("growth must be from 1 to %d", MaxGrowth)
	}
	return nil
}

// Part is some instances of a run, which become one job.
type Part struct {
	Wave        int // 0 = the canary, or the first wave of a run without one is 1
	InstanceIDs []string
	// Generations are what the fleet's counters must be; without one any will do.
	Generations map[string]int
}

// Waves are how many instances each wave of a round with so many has: the canary is number 0. Without one there is
// a wave of all, number 1, and the first of the answer is 0.
//
// A list that is shorter than the canary, as that of a retry can be, is all canary.
func (o RunOptions) Waves(total int) []int {
	if o.Canary == 0 {
		return []int{0, total}
	}
	waves := []int{min(o.Canary, total)}
	for rest := total - waves[0]; rest > 0; rest -= waves[len(waves)-1] {
		length := rest
		if grown := math.Ceil(float64(o.Canary) * math.Pow(o.Growth, float64(len(waves)))); grown < float64(min(rest, o.MaxParallel)) {
			length = int(grown)
		}
		waves = append(waves, length)
	}
	return waves
}

// Parts cuts a list, in its order, into parts: no part has instances of two waves, or more of them than
// may be open at a time.
func (o RunOptions) Parts(instanceIDs []string, generations map[string]int) (parts []Part) {
	size := min(partSize, o.MaxParallel)
	for wave, length := range o.Waves(len(instanceIDs)) {
		for part := range slices.Chunk(instanceIDs[:length], size) {
			parts = append(parts, Part{wave, part, generations})
		}
		instanceIDs = instanceIDs[length:]
	}
	return parts
}
