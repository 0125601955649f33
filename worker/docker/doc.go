// Package docker resets phones that are containers of a Docker engine, such as redroid.
//
// Android in a container has no recovery: it is reset by a new container with empty data. The
// driver makes one that is like the old one, and puts it in its place:
//
//	1 look      find the phone's container, and who else uses its data or its network
//	2 twin      create a container with the configuration that the engine tells of the old one,
//	            under a temporary name
//	3 ask       MaySend
//	4 take away stop and remove the old container
//	5 wipe      empty the data: by a helper container of the twin's image, which has the phone's
//	            name meanwhile; then look with the engine's own eyes whether it is empty
//	6 swap      give the twin the phone's name
//	7 boot      start it, and wait until it has booted
//
// # Nothing is remembered
//
// After each step the driver looks again which containers there are, and does what comes next. So
// it goes on after a crash between any two steps, of the worker, the engine or the host, and a repeat
// under the same key is harmless ([Driver.Repeatable]). There is no checkpoint: the smallest
// configuration of a container is larger than one may be, and the twin, which the engine keeps, is
// a better one. What there is, and what it means:
//
//	the name belongs to    our twin    next
//	the old container      no          twin
//	the old container      yes         take away: it is what the twin's name says
//	a helper, or nobody    started     another twin, take the started one away
//	another container      yes         none: somebody else has replaced the phone
//	a helper               yes         wait for its end; if the data is empty, swap
//	nobody                 yes         wipe, swap
//	our twin               -           boot
//
// Ours is what has the driver key as its label batchreset.reset.
//
// # Two workers at one phone
//
// It can happen, when one was frozen and thaws after its lease. The engine gives a name to one
// container at a time, and all that could do harm hangs on that:
//
//   - The data is emptied only by a helper that has the phone's name, so never while a phone
//     has it: whoever comes too late finds the name taken.
//   - A twin is started only when it has the name, and takes the place only of the container that
//     it was made of: a hash of that one's ID is in its temporary name.
//   - Nothing is removed by force, or by name. A phone that was started meanwhile stays.
//   - Older twins are removed only by a reset whose own twin has the name, and only those that
//     were there when MaySend said yes. So one container with the configuration is always there.
//   - A phone that is removed when it stops (docker run --rm) gets another twin before it is started,
//     which is removed when it has booted.
//
// What remains is the time between MaySend's answer and the end of the old container: a few calls.
//
// # Twins that somebody starts
//
// 'docker compose up' starts all that has its labels, twins among it, and so may people. Such a twin has run with the
// data of the last user, and would say that it has booted. It never becomes the phone: another twin is made of it, and then
// it is stopped and removed, before the data is emptied. After that it is looked again whether one was started meanwhile.
// A spare that was started runs with the new data: it is not ended, because it may be the phone by then. That is unknown.
//
// # What an answer means
//
//	before MaySend
//	no connection, 401, 403, an engine before 20.10    unreachable
//	400                                                permanent
//	any other answer, or one that is not understood    retry
//	no such phone, two of them, another instance's,
//	shared data or network, data nobody has named      permanent; nothing was created, or it is
//	                                                   removed again
//	somebody else changes the phone's containers       busy, or retry
//	MaySend says no                                    not sent
//	after MaySend
//	anything but the end                               unknown; a repeat goes on there
//	the phone has another container                    unknown
//
// 409 means that a name is taken, or that a container runs, and 404 that it is gone; 304 that it runs
// or has ended already. After them the driver looks again.
//
// # The client
//
// The engine is spoken to with net/http. Its own client, github.com/moby/moby/client, knows each field
// of a container by name, and drops those that an engine of another version has besides: the twin
// would lack them. What is copied here is passed on as it came. That client would also bring 12 modules
// that nothing else here needs, to make 16 different calls.
package docker
