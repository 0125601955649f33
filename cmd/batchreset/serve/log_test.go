package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestTheLogShowsWhatIsNotSeen(t *testing.T) {
	const trap = "in\u202evoice\u2066\u200b\x1b[2J"
	var out bytes.Buffer
	newLogger(&out).With("tenant", trap).Info("refused "+trap, "path", "/"+trap+"\n{}", "instance_ids", []string{trap}, "error", errors.New(trap))
	if lines := strings.Split(out.String(), "\n"); len(lines) != 2 || lines[1] != "" || strings.ContainsAny(lines[0], "\u202e\u2066\u200b\x1b") {
		t.Fatalf("log %q", out.String())
	}
	var line struct {
		Msg, Tenant, Path, Error string
		InstanceIDs              []string `json:"instance_ids"`
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || !strings.HasPrefix(line.Path, "/in[U+202E]voice[U+2066][U+200B]") || line.InstanceIDs == nil {
		t.Errorf("%v, line %+v", err, line)
	}
}
