package login

import (
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
)

// RFC 6238, appendix B, with the six digits that apps show; and clocks that differ.
func TestStepOf(t *testing.T) {
	const secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" // "12345678901234567890"
	for at, code := range map[int64]string{59: "287082", 1111111109: "081804", 1234567890: "005924", 2000000000: "279037"} {
		if step, fits := stepOf(secret, code, time.Unix(at, 0)); !fits || step != at/30 {
			t.Errorf("at %d: step %d, %t", at, step, fits)
		}
	}
	now := time.Unix(1_800_000_015, 0)
	for _, row := range []struct {
		by   time.Duration
		fits bool
	}{{0, true}, {-30 * time.Second, true}, {30 * time.Second, true}, {-60 * time.Second, false}, {60 * time.Second, false}} {
		code, err := totp.GenerateCode(secret, now.Add(row.by))
		if err != nil {
			t.Fatal(err)
		}
		if step, fits := stepOf(secret, code, now); fits != row.fits || fits && step != now.Add(row.by).Unix()/30 {
			t.Errorf("%s: step %d, %t", row.by, step, fits)
		}
	}
	for _, code := range []string{"", "28708", "2870820", "28708a"} {
		if _, fits := stepOf(secret, code, time.Unix(59, 0)); fits {
			t.Errorf("%q fits", code)
		}
	}
}
