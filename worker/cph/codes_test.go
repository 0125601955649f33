package cph

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"batchreset/worker"
)

func TestACodeIsFoundHoweverItIsPrinted(t *testing.T) {
	for code, want := range map[string]class{
		"CPS.0005": hopeless, "CPS0005": hopeless, "cps.0005": hopeless, "APIGW.0308": later, "APIG.0308": later, "apig.0301": shut,
	} {
		if got, known := classOf(code); !known || got != want {
			t.Errorf("%s: %d, %t", code, got, known)
		}
	}
	for _, code := range []string{"", "0", "5", "CPS.5", "CPS.00055", "KOOPHONE.API.1000", "APIGW.0201"} {
		if _, known := classOf(code); known {
			t.Errorf("%q is known", code)
		}
	}
	for code := range codes {
		if plainCode(code) != code {
			t.Errorf("%s can never be found", code)
		}
	}
}

// FuzzNoAnswerIsTooStrange: whatever is answered, the driver understands it or says that it did
// not, and takes no other phone's job.
func FuzzNoAnswerIsTooStrange(f *testing.F) {
	f.Add(200, entry(`"job_id":"job-1"`))
	f.Add(200, refused("CPS.0005"))
	f.Add(400, wrong("CPS.0042"))
	f.Add(200, `{"job_id":"job-1","status":-1}`)
	f.Add(200, "\xff\xfe{}")
	f.Fuzz(func(t *testing.T, status int, body string) {
		said := reply{worker.Answer{Status: status, Header: http.Header{}, Body: []byte(body), At: time.Now()}}
		_, job, fault := accepted(said, phoneA)
		switch {
		case fault != nil:
			_ = fault.as(fault.class.verdict(), "what")
		case !plainID.MatchString(job) || !strings.Contains(body, job):
			t.Errorf("job %q of %q", job, body)
		}
		if m, err := readMark(body, phoneA); err == nil && m.JobID != "" && !plainID.MatchString(m.JobID) {
			t.Errorf("a checkpoint of job %q", m.JobID)
		}
	})
}
