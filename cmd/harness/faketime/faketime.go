// Package faketime lets time pass in tests whose clock is not real: those that run in a
// bubble of testing/synctest.
package faketime

import "time"

// Pass lets d pass in a bubble: everything that is due until then happens first, and no
// real time is lost. Outside of a bubble it panics, so that no test sleeps with it.
func Pass(d time.Duration) {
	if time.Now().Year() > 2010 { // the clock of a bubble starts with the year 2000
		panic("faketime.Pass outside of a synctest bubble: it would really sleep")
	}
	time.Sleep(d)
}
