package report

import (
	"math"
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, row := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{7}, 7},
		{[]float64{3, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		given := slices.Clone(row.values)
		if got := Median(row.values); got != row.want {
			t.Errorf("Median(%v) = %v, want %v", row.values, got, row.want)
		}
		if !slices.Equal(given, row.values) {
			t.Errorf("%v was reordered to %v", given, row.values)
		}
	}
	if got := Median(nil); !math.IsNaN(got) {
		t.Errorf("the median of nothing is %v", got)
	}
}

func TestSpread(t *testing.T) {
	if got, want := SpreadOf([]float64{2, 9, 4}), (Spread{Median: 4, Min: 2, Max: 9}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestGroupsAreMediansOfNeighbours(t *testing.T) {
	for _, row := range []struct {
		values []float64
		n      int
		want   []float64
	}{
		{[]float64{1, 2, 9, 4, 5, 6}, 2, []float64{2, 5}},
		{[]float64{1, 2, 3, 4, 5}, 2, []float64{1.5, 4}},
		{[]float64{1, 2}, 5, []float64{1, 2}},
		{nil, 3, nil},
	} {
		if got := Groups(row.values, row.n); !slices.Equal(got, row.want) {
			t.Errorf("Groups(%v, %d) = %v, want %v", row.values, row.n, got, row.want)
		}
	}
}

func TestRatios(t *testing.T) {
	if got, want := Ratios([]float64{6, 9}, []float64{2, 3, 5}), []float64{3, 3}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
