// Package execdriver resets instances by running a program: one process for each attempt, which
// is told in one line of JSON what to do and answers in lines of JSON. README.md has the protocol
// for those who write such a program.
//
// What the end of a run means:
//
//	result done, exit status 0      done
//	result retry                    failed, retry; retry_after is honoured
//	result permanent                failed for good
//	result busy                     the instance is busy; retry_after is honoured
//	result unreachable              no phone was reached: counts as unreachable
//	result unknown                  in doubt
//	busy or unreachable, after a    in doubt, to be resumed from the checkpoint: the program
//	checkpoint of the same run      could not go on watching what it had begun
//	done, another exit status       in doubt
//	a result, ended by a signal     in doubt
//	no result                       in doubt, whatever the exit status, but see below
//	not understood                  in doubt: a line that is no JSON object, has a field that is
//	                                not known or there twice, or a word that is not known; two
//	                                results; anything after the result; a checkpoint over 2048
//	                                bytes, a line over 32 KiB, output over 1 MiB
//	could not be started            unreachable: nothing was done
//
// With [Config.ExitStatus], if there is no result:
//
//	0                               done
//	75 (EX_TEMPFAIL)                failed, retry
//	69 (EX_UNAVAILABLE)             unreachable
//	129 to 192                      in doubt: what a shell ran was ended by a signal
//	other                           failed for good
//	any, after it was told to stop  in doubt
//	none: ended by a signal         in doubt
//
// Lines that do not begin with { are then no answer, and ignored.
//
// A result counts when the program has exited by itself. What it says after it was told to stop
// counts too; an exit status then does not, because many programs exit with 0 when they are told to.
//
// # Doubt
//
// A program that is run again after a run whose outcome is not known may reset the phone twice.
// It is told (ambiguous), but a script that somebody wrote in a hurry does not listen. So only
// these are run in doubt:
//
//   - a program that left a checkpoint: it gets it and goes on from there;
//   - one whose operator says that a repeat is harmless ([Config.Repeatable]).
//
// One that can look is looked with first, and again until the item's time is over: if the phone is
// in its initial state, that is all. A phone that is not may still be about to reset, so a look
// alone does not run the program again.
//
// For others the item ends as unknown, and people decide. A failure (retry, permanent) of a run
// that had a checkpoint to go on from is one of the reset that was in doubt, which ends the
// doubt; that of a mere repeat does not.
//
// # Nothing goes on
//
// A program is started directly after MaySend has allowed it, because starting it may reset the
// phone. It runs in a process group of its own, which is told to stop (SIGTERM) 10 s before the
// attempt's time ends, or when the attempt is stopped, and is killed at the end of that time, or
// 3 s after it was told to stop: the worker gives a driver 5 s to return. What a program leaves in
// its group when it ends is killed too. Whoever leaves the group and holds the pipes holds nobody
// up: when the program has ended, what is in them is read, and no more is waited for.
//
// When the worker itself is killed, the kernel kills the program (on Linux): otherwise the next
// attempt would run beside it. What the program has started then is not killed by the kernel. A
// container ends with its first process, and systemd stops all of a unit (KillMode=control-group,
// its default): run the worker in one of these.
//
// # Limits
//
// Whatever a program writes, at most 32 KiB of a line and 8 KiB of standard error are held in
// memory. A program that writes too much is read to its end all the same: one that loses its
// reader would stop half-way through a reset. A run takes four file descriptors and no thread.
package execdriver
