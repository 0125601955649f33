package worker

import "time"

// SuspectFor makes the sweeper take over what has looked idle for so long.
func (s *Sweeper) SuspectFor(d time.Duration) { s.suspects.ripeAfter = d }
