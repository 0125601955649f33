package history

import (
	"fmt"
	"slices"
	"strings"
)

// Violation is a broken promise.
type Violation struct {
	Invariant string // its number in DESIGN, section 3
	What      string
	Story     []Event // what happened around it, in time order
}

func (v Violation) String() string {
	const most = 40 // lines that somebody will read
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", v.Invariant, v.What)
	for i, e := range v.Story {
		if skipped := len(v.Story) - most; skipped > 0 && i >= most/2 && i < most/2+skipped {
			if i == most/2 {
				fmt.Fprintf(&b, "  (%d events left out)\n", skipped)
			}
			continue
		}
		fmt.Fprintf(&b, "  %s\n", e)
	}
	return b.String()
}

// Check decides every invariant on a complete history. It is a pure function.
func Check(h Run) []Violation {
	f := index(h)
	return slices.Concat(
		f.checkI1EveryAcceptedJobEnds(),
		f.checkI2RecordsAddUp(),
		f.checkI3OneResetAtATime(),
		f.checkI4NoHiddenCalls(),
		f.checkI4TheRightPhone(),
		f.checkI5FinalIsFinal(),
		f.checkI6SameKeySameJob(),
		f.checkI7CancelledIsNeverCalled(),
		f.checkI8RefusedLeavesNothing(),
		f.checkI9EveryEndIsTold(),
		f.checkI10CrashesAreNoFailures(),
		f.checkI10WhatSentNothingIsNotUnknown(),
		f.checkI10WhatWasHeardIsNotUnknown(),
		f.checkI10TheLivingAreNotReplaced(),
		f.checkI11NeverAStaleWipe(),
		f.checkI11NeverTooEarlyOrTooLate(),
		f.checkI12DoubtStaysDoubt(),
		f.checkI12NeverTwice(),
		f.checkI13SuccessWasSeen(),
		f.checkI13SuccessWasLookedAt(),
		f.checkI13ALieIsNoSuccess(),
		f.checkI13EvidenceIsTheLastLook(),
		f.checkI14WhatIsAskedIsDone(),
		f.checkI15TheBrakeWorks(),
		f.checkI16EveryRunEnds(),
		f.checkI16ARunIsWhatWasAsked(),
		f.checkI16CountsAddUp(),
		f.checkI16OneJobForEach(),
		f.checkI16ResultsAreWhole(),
		f.checkI16WavesComeInTurn(),
		f.checkI16Pace(),
		f.checkI16Budget(),
		f.checkI16BrakesHold(),
		f.checkHaltHolds(),
	)
}
