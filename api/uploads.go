package api

import (
	"context"
	"hash/maphash"
)

const (
	// maxUploads is how many long bodies may be read at the same time for their signature: only with all of it
	// is it known who has sent it.
	maxUploads = 8
	// maxUploadsOfOne is how many of them may name one access key and come from one network. Who knows an access
	// key without its secret, and sends half of a body, holds up those who could be locked out anyway.
	maxUploadsOfOne = 2
	// uploadShares is how many shares there are; a few callers may have one together.
	uploadShares = 256
)

// uploads lets long bodies be read in turn.
type uploads struct {
	room   chan struct{}
	seed   maphash.Seed
	shares [uploadShares]chan struct{}
}

func newUploads() *uploads {
	u := &uploads{room: make(chan struct{}, maxUploads), seed: maphash.MakeSeed()}
	for i := range u.shares {
		u.shares[i] = make(chan struct{}, maxUploadsOfOne)
	}
	return u
}

// begin waits until it is the turn of somebody who says to be who. Its error is that of ctx.
func (u *uploads) begin(ctx context.Context, who string) (end func(), err error) {
	share := u.shares[maphash.String(u.seed, who)%uploadShares]
	select {
	case share <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case u.room <- struct{}{}:
		return func() { <-u.room; <-share }, nil
	case <-ctx.Done():
		<-share
		return nil, ctx.Err()
	}
}
