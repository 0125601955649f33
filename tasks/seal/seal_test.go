package seal

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

func line(b byte) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune(b)), keySize))) + "\n"
}

func keys(t *testing.T, text string) *Keys {
	t.Helper()
	k, err := Read([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestASecretIsSealed(t *testing.T) {
	k := keys(t, "# of 2026\n"+line('a'))
	kept := k.Seal("whsec_secret", "here")
	if strings.Contains(kept, "secret") || !Sealed(kept) {
		t.Fatalf("kept as %q", kept)
	}
	if again := k.Seal("whsec_secret", "here"); again == kept {
		t.Error("the same secret is sealed to the same text twice: who reads both knows that")
	}
	secret, stale, err := k.Open(kept, "here")
	if secret != "whsec_secret" || stale || err != nil {
		t.Errorf("opened as %q, stale %t, %v", secret, stale, err)
	}
}

func TestKeysAreRotated(t *testing.T) {
	before, after := keys(t, line('a')), keys(t, line('b')+"\n"+line('a'))
	kept := before.Seal("s", "here")
	if secret, stale, err := after.Open(kept, "here"); secret != "s" || !stale || err != nil {
		t.Errorf("of an older key: %q, stale %t, %v", secret, stale, err)
	}
	if _, stale, err := after.Open(after.Seal("s", "here"), "here"); stale || err != nil {
		t.Errorf("sealed anew: stale %t, %v", stale, err)
	}
	if secret, stale, err := after.Open("open", "here"); secret != "open" || !stale || err != nil {
		t.Errorf("not sealed yet: %q, stale %t, %v", secret, stale, err)
	}
}

func TestWithoutKeysSecretsStayAsTheyAre(t *testing.T) {
	var none *Keys
	if kept := none.Seal("s", "here"); kept != "s" {
		t.Errorf("kept as %q", kept)
	}
	if secret, stale, err := none.Open("s", "here"); secret != "s" || stale || err != nil {
		t.Errorf("opened as %q, stale %t, %v", secret, stale, err)
	}
}

func TestWhatDoesNotOpen(t *testing.T) {
	k := keys(t, line('a'))
	kept := k.Seal("s", "here")
	for name, open := range map[string]func() (string, bool, error){
		"without keys":  func() (string, bool, error) { return (*Keys)(nil).Open(kept, "here") },
		"another key":   func() (string, bool, error) { return keys(t, line('b')).Open(kept, "here") },
		"another place": func() (string, bool, error) { return k.Open(kept, "there") },
		"changed":       func() (string, bool, error) { return k.Open(kept[:len(kept)-4]+"AAAA", "here") },
		"cut off":       func() (string, bool, error) { return k.Open(kept[:len(kept)-8], "here") },
		"no base64":     func() (string, bool, error) { return k.Open(kept+"?", "here") },
		"nothing":       func() (string, bool, error) { return k.Open(kept[:len("sealed:1:00000000:")], "here") },
	} {
		if secret, _, err := open(); secret != "" || !errors.Is(err, ErrNotOpened) {
			t.Errorf("%s: %q, %v", name, secret, err)
		}
	}
}

func TestFilesThatHaveNoKeys(t *testing.T) {
	for text, want := range map[string]string{
		"":                    "has no key",
		"# nothing yet\n\n":   "has no key",
		"# a\nsecret!\n":      "line 2 is not base64",
		"c2hvcnQ=\n":          "line 1 is a key of 5 bytes, not 32",
		line('a') + line('a'): "line 2 has a key for the second time",
		line('a') + strings.TrimRight(line('b'), "=\n") + "\n": "line 2 is not base64",
	} {
		if _, err := Read([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
