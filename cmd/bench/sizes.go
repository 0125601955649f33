package main

import "time"

// sizes are how much each row does. Counts are of instances unless they say otherwise.
type sizes struct {
	rounds   int           // how often a row is measured; what has many samples makes so many groups of them
	rowLimit time.Duration // after which a row is given up

	submit int // for each side of a round
	drain  int // for each side of a round

	latency time.Duration // for each round

	idleBatches int           // in all
	idleGap     time.Duration // between two of them, on average
	idleRounds  int           // of the idle worker's cost
	idleCPU     time.Duration // for each side of such a round

	polls time.Duration // for each kind of poll in a round

	waiters    int // connections
	waitedJobs int
	waitRounds int

	memoryBatches int // of 32

	inFlight       int
	inFlightLasts  time.Duration // the simulator takes between half of it and one and a half
	inFlightWindow time.Duration // of looking at Redis while all are in flight; whole beats of 5 s
	inFlightSplit  int           // tenants, so that the tasks spread over the queues

	attempts       int           // in flight with each type of driver but docker
	dockerAttempts int           // in flight with docker
	attemptsSettle time.Duration // before a worker's memory is looked at

	few, many int // queued
	cycle     int // submitted and drained again in one cycle
	cycles    int

	crowd      int // queued by the large tenant
	tries      int // for each round
	candidates int // tenants asked for the queues that they use

	starts int // in all

	pagesEnded, pagesOpen int // instances, while pages are looked at
	looks                 int // at each page

	sweepJobs, sweepRounds int

	run       int           // of a run that is made, and of one that is polled while it goes on
	runPolls  time.Duration // of each kind in a round
	runDrain  int           // for each side of a pair
	runPairs  int
	idleRuns  int           // of one instance each
	runIdle   time.Duration // for each side of a round
	runRounds int           // of such idle runs
}

func full() sizes {
	return sizes{
		rounds: 5, rowLimit: 10 * time.Minute,
		submit: 100_000, drain: 60_000,
		latency:     5 * time.Second,
		idleBatches: 120, idleGap: 120 * time.Millisecond, idleRounds: 3, idleCPU: 10 * time.Second,
		polls:   time.Second,
		waiters: 10_000, waitedJobs: 100, waitRounds: 3,
		memoryBatches: 4000,
		inFlight:      10_000, inFlightLasts: time.Minute, inFlightWindow: 20 * time.Second, inFlightSplit: 64,
		attempts: 10_000, dockerAttempts: 200, attemptsSettle: 5 * time.Second,
		few: 1000, many: 1_000_000, cycle: 3200, cycles: 30,
		crowd: 100_000, tries: 4, candidates: 60,
		starts:     20,
		pagesEnded: 1_000_000, pagesOpen: 100_000, looks: 25,
		sweepJobs: 100_000, sweepRounds: 2,
		run: 100_000, runPolls: 2 * time.Second,
		runDrain: 60_000, runPairs: 3,
		idleRuns: 1000, runIdle: 20 * time.Second, runRounds: 2,
	}
}

func quick() sizes {
	return sizes{
		rounds: 3, rowLimit: 90 * time.Second,
		submit: 25_000, drain: 10_000,
		latency:     time.Second,
		idleBatches: 16, idleGap: 80 * time.Millisecond, idleRounds: 1, idleCPU: 3 * time.Second,
		polls:   400 * time.Millisecond,
		waiters: 10_000, waitedJobs: 100, waitRounds: 1,
		memoryBatches: 1000,
		inFlight:      10_000, inFlightLasts: 12 * time.Second, inFlightWindow: 5 * time.Second, inFlightSplit: 48,
		attempts: 1000, dockerAttempts: 100, attemptsSettle: 500 * time.Millisecond,
		few: 1000, many: 100_000, cycle: 3200, cycles: 5,
		crowd: 20_000, tries: 3, candidates: 20,
		starts:     6,
		pagesEnded: 20_000, pagesOpen: 2_000, looks: 9,
		sweepJobs: 1000, sweepRounds: 3,
		run: 25_000, runPolls: 400 * time.Millisecond,
		runDrain: 10_000, runPairs: 2,
		idleRuns: 300, runIdle: 3 * time.Second, runRounds: 2,
	}
}
