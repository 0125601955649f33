package execdriver

import (
	"context"
	"strings"
	"testing"

	"batchreset/worker"
)

func TestALook(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		script   string
		want     worker.SightState // empty: an error
		evidence string            // or what the error says
	}{
		{`echo '{"initial":true,"evidence":"boot id 5d1c, by adb"}'`, worker.Initial, "boot id 5d1c, by adb"},
		{`echo '{"progress":"x"}'; echo '{"initial":true}'`, worker.Initial, ""},
		{`echo '{"initial":false,"evidence":"the old one"}'`, worker.NotInitial, "the old one"},
		{`echo '{"result":"unknown","message":"still booting"}'`, worker.Unclear, "still booting"},
		{`echo '{"result":"unknown","evidence":"boot","message":"still booting"}'; exit 1`, worker.Unclear, "boot"},
		{`printf '{"initial":true,"evidence":"%0255dé"}' 1`, worker.Initial, strings.Repeat("0", 254) + "1"},
		{`echo '{"result":"unreachable","message":"no route"}'`, "", "could not look: no route"},
		{`echo '{"result":"retry"}'`, "", "could not look: the program says retry"},
		{`echo '{"result":"done"}'`, "", "no answer to a look"},
		{`echo '{"checkpoint":"x"}'`, "", "for the mode reset"},
		{`echo '{"initial":true}'; exit 3`, "", "exit status 3"},
		{`echo '{"initial":false}'; kill -9 $$`, "", "signal: killed"},
		{`echo '{"initial":true}'; echo '{"initial":true}'`, "", "comes after the result"},
		{`echo '{"initial":"yes"}'`, "", `wrong type in "initial"`},
		{`echo initial`, "", "is not a JSON object"},
		{`exit 0`, "", "did not say what it saw"},
	} {
		t.Run(row.script, func(t *testing.T) {
			t.Parallel()
			d, _ := open(t, Config{Look: true}, row.script)
			sight, err := d.(worker.Looker).Look(limited(t), attempt())
			if row.want == "" {
				if err == nil || !strings.Contains(err.Error(), row.evidence) {
					t.Errorf("got %+v, %v", sight, err)
				}
				return
			}
			if want := (worker.Sight{State: row.want, Evidence: row.evidence}); sight != want || err != nil {
				t.Errorf("got %+v, %v", sight, err)
			}
		})
	}
}

func TestALookIsToldThatItIsOneAndAsksNobody(t *testing.T) {
	t.Parallel()
	d, _ := open(t, Config{Look: true}, `case $(cat) in *'"mode":"look"'*'"checkpoint":"job 7"'*) echo '{"initial":true}' ;; esac`)
	a := attempt()
	a.Checkpoint = "job 7"
	a.MaySend = func() error { t.Error("a look sends nothing"); return nil }
	a.Save = func(context.Context, string) error { t.Error("a look saves nothing"); return nil }
	if sight, err := d.(worker.Looker).Look(limited(t), a); err != nil || sight.State != worker.Initial {
		t.Errorf("%+v, %v", sight, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if sight, err := d.(worker.Looker).Look(ended, a); err == nil {
		t.Errorf("after its time: %+v", sight)
	}
}
