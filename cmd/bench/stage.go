package main

import (
	"context"
	"path/filepath"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/stack"
)

// stage is what a row measures on: a stack of its own, and what all rows share.
type stage struct {
	*bench
	*stack.Stack
}

// newStage starts a stack, which ends with the row.
func (b *bench) newStage(ctx context.Context, name string) (*stage, error) {
	s, err := stack.Start(ctx, b.program, filepath.Join(b.dir, name))
	if err != nil {
		return nil, err
	}
	b.stacks = append(b.stacks, s)
	return &stage{b, s}, nil
}

func (b *bench) closeStacks() {
	for _, s := range b.stacks {
		s.Close()
	}
	b.stacks = nil
}

// fill submits n instances and leaves no api behind.
func (s *stage) fill(ctx context.Context, n int, flags ...string) error {
	a, token, err := s.StartTenant(ctx, flags...)
	if err != nil {
		return err
	}
	defer a.Kill()
	_, err = load.Submit(ctx, a.Addr, token, n)
	return err
}
