package api

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"batchreset/tasks"
)

// manyTokens are all good, and counts the looks at each.
type manyTokens struct {
	looks map[string]int
	most  int // in one turn
}

func (m *manyTokens) Now() time.Time { return time.Now() }

func (m *manyTokens) TokensByHash(_ context.Context, hashes []string) (map[string]tasks.Token, error) {
	found := map[string]tasks.Token{}
	for _, hash := range hashes {
		m.looks[hash]++
		found[hash] = tasks.Token{Hash: hash, Tenant: "acme", Scopes: tasks.Scopes}
	}
	m.most = max(m.most, len(hashes))
	return found, nil
}

// However many tokens there are, a turn looks at a bounded number of them, and each has its
// turn.
func TestCrowdsOfTokensAreLookedAtInTurn(t *testing.T) {
	m := &manyTokens{looks: map[string]int{}}
	w := newWatchers(m, 10_000, slog.New(slog.DiscardHandler))
	for n := range 3 * looksAtOnce {
		if _, ok := w.add(tasks.Token{Hash: fmt.Sprint(n), Tenant: "acme"}, target{id: "job", kind: poll}); !ok {
			t.Fatal("no room")
		}
	}
	now := time.Now()
	for turn := range 6 {
		w.lookAtTokens(t.Context(), now.Add(time.Duration(turn)*lookInterval))
	}
	for n := range 3 * looksAtOnce {
		if looks := m.looks[fmt.Sprint(n)]; looks != 2 {
			t.Fatalf("%d looks at token %d in 6 turns, want 2", looks, n)
		}
	}
	if m.most != looksAtOnce {
		t.Errorf("%d looks in a turn, want %d", m.most, looksAtOnce)
	}
}
