package call

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
)

// keys is a service that refuses a key that was used for another body.
type keys struct {
	mu     sync.Mutex
	bodies map[string]string
	limit  int // of keys that it takes, then it refuses the token; 0 = none
}

func (k *keys) submitting(s *fakeService) func(w http.ResponseWriter, r *http.Request, n int) bool {
	return func(w http.ResponseWriter, r *http.Request, n int) bool {
		s.Mu.Lock()
		body := s.Bodies[n-1]
		s.Mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		key := r.Header.Get("Idempotency-Key")
		before, used := k.bodies[key]
		switch {
		case used && before != body:
			calltest.AnswerError(w, 422, "RESET.0002", "Idempotency-Key was used for another request")
		case used: // the same job
			calltest.AnswerOK(w, map[string]any{"task_id": job1, "cmd_jobs": []any{}})
		case k.limit > 0 && len(k.bodies) == k.limit:
			calltest.AnswerError(w, 401, "APIGW.0307", "expired")
		default:
			k.bodies[key] = body
			return false
		}
		return true
	}
}

func TestARunCanBeRepeated(t *testing.T) {
	begin := func(t *testing.T, limit int) (*fakeService, *keys) {
		t.Helper()
		s := newFakeService(t)
		k := &keys{bodies: map[string]string{}, limit: limit}
		s.Submitting = k.submitting(s)
		return s, k
	}
	list := strings.Join(phones(200), "\n")
	submit := func(t *testing.T, s *fakeService, list string, args ...string) terminaltest.Result {
		t.Helper()
		return s.callWith(t.Context(), strings.NewReader(list), append([]string{"submit", "--file", "-"}, args...)...)
	}
	t.Run("and goes on where it broke off", func(t *testing.T) {
		s, k := begin(t, 3)
		r := submit(t, s, list, "--run-id", "recall-7", "--parallel", "1")
		r.Says(t, "APIGW.0307: expired", "not sent:", "the same command with --run-id recall-7 goes on from here", "104 of 200 instances not accepted")
		if r.Code != terminal.ExitSome {
			t.Errorf("exit code %d", r.Code)
		}
		k.limit = 0
		if r := submit(t, s, list, "--run-id", "recall-7"); r.Code != 0 {
			t.Errorf("exit code %d: %s", r.Code, r.Said)
		}
		var sent []string
		for key, body := range k.bodies {
			var b struct {
				InstanceIDs []string          `json:"instance_ids"`
				Labels      map[string]string `json:"labels"`
			}
			if err := json.Unmarshal([]byte(body), &b); err != nil || b.Labels["run_id"] != "recall-7" {
				t.Errorf("sent %s under %s", body, key)
			}
			sent = append(sent, b.InstanceIDs...)
		}
		slices.Sort(sent)
		if want := slices.Sorted(slices.Values(phones(200))); !slices.Equal(sent, want) {
			t.Errorf("%d instances under %d keys", len(sent), len(k.bodies))
		}
	})
	for name, changed := range map[string]struct {
		list string
		args []string
	}{
		"a line put in at its end":       {list: list + "\nmore"},
		"a line put in far behind":       {list: strings.Replace(list, "phone-199", "more\nphone-199", 1)},
		"a line taken out of its middle": {list: strings.Replace(list, "phone-100\n", "", 1)},
		"another order":                  {list: strings.Replace(list, "phone-0\nphone-1\n", "phone-1\nphone-0\n", 1)},
		"another chunk":                  {list: list, args: []string{"--chunk", "20"}},
		"another reason":                 {list: list, args: []string{"--reason", "other"}},
	} {
		t.Run("but not with "+name, func(t *testing.T) {
			s, k := begin(t, 3)
			submit(t, s, list, "--run-id", "recall-7")
			k.limit = 0
			r := submit(t, s, changed.list, append(changed.args, "--run-id", "recall-7")...)
			if len(k.bodies) != 3 {
				t.Errorf("%d more requests were accepted", len(k.bodies)-3)
			}
			r.Says(t, "RESET.0002", "--run-id recall-7 was used for another list or with other options")
			if r.Code != terminal.ExitRefused || strings.Count(r.Said, "RESET.0002") != 1 {
				t.Errorf("exit code %d, %s", r.Code, r.Said)
			}
		})
	}
	t.Run("under the ID that it was given, if it had none", func(t *testing.T) {
		s, k := begin(t, 3)
		r := submit(t, s, list, "--not-before", "1h")
		found := regexp.MustCompile(`if this breaks off, the same command with --run-id (\S+) --not-before (\S+) goes on`).FindStringSubmatch(r.Said)
		if found == nil {
			t.Fatalf("standard error %q", r.Said)
		}
		k.limit = 0
		if r := submit(t, s, list, "--run-id", found[1], "--not-before", found[2]); r.Code != 0 || len(k.bodies) != 7 {
			t.Errorf("exit code %d, %d keys, %s", r.Code, len(k.bodies), r.Said)
		}
	})
	t.Run("and one request alone needs no ID", func(t *testing.T) {
		s, _ := begin(t, 0)
		r := submit(t, s, "phone-1")
		if strings.Contains(r.Said, "--run-id") || strings.Contains(s.Bodies[0], "labels") {
			t.Errorf("sent %s, said %s", s.Bodies[0], r.Said)
		}
	})
	s, _ := begin(t, 0)
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"an ID with a space":      {[]string{"--run-id", "a b"}, `--run-id must be 1 to 240 characters of A-Z a-z 0-9 . _ : ~ + -, not "a b"`},
		"a long ID":               {[]string{"--run-id", strings.Repeat("x", 241)}, "--run-id must be 1 to 240"},
		"a label of the run's":    {[]string{"--run-id", "a", "--label", "run_id=b"}, "--label run_id is kept for the run ID"},
		"more labels than remain": {[]string{"--run-id", "a", "--label", "a=,b=,c=,d=,e=,f=,g="}, "--label, with those that say the run, has 9 labels, the limit is 8"},
	} {
		t.Run("not with "+name, func(t *testing.T) {
			s.call(t, append([]string{"submit", "phone-1"}, row.args...)...).Wants(t, terminal.ExitUsage, "", row.want)
		})
	}
	if n := s.Requests(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestALongListThatIsInterrupted(t *testing.T) {
	s := newFakeService(t)
	ctx, interrupt := terminaltest.Interruptible(t)
	s.Submitting = func(_ http.ResponseWriter, _ *http.Request, n int) bool {
		if n == 2 {
			interrupt()
		}
		return false
	}
	ids := phones(4000)
	r := s.callWith(ctx, strings.NewReader(strings.Join(ids, "\n")), "submit", "--file", "-", "--run-id", "a", "--parallel", "1")
	r.Wants(t, terminaltest.ExitInterrupted, job1+"\n"+job2+"\n", fmt.Sprintf("%s and 3836 more\n", ids[163]), "the same command with --run-id a goes on from here", "interrupted; 3936 of 4000 instances")
}
