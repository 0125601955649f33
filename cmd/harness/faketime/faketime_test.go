package faketime_test

import (
	"testing"
	"testing/synctest"
	"time"

	"batchreset/cmd/harness/faketime"
)

func TestTimePassesInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		faketime.Pass(time.Hour)
		if passed := time.Since(begin); passed != time.Hour {
			t.Errorf("%s passed", passed)
		}
	})
}

func TestNoTestReallySleeps(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Pass really sleeps")
		}
	}()
	faketime.Pass(0)
}
