package report

import "testing"

func TestCPUModel(t *testing.T) {
	if got := cpuModel("processor\t: 0\nmodel name\t: Abacus 9\nmodel name\t: Abacus 9\n"); got != "Abacus 9" {
		t.Errorf("got %q", got)
	}
	if got := cpuModel(""); got != unknown {
		t.Errorf("got %q", got)
	}
}
