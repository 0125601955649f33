package proof

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
)

// RFC 8037, appendix A.3 and A.4.
func TestTheKeyOfTheRFC(t *testing.T) {
	s := rfcSigner(t)
	if id := KeyID(s.keys[0]); id != rfcKeyID {
		t.Errorf("its ID is %s", id)
	}
	const text = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
	const want = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
	if got := encode(ed25519.Sign(s.private, []byte(text))); got != want {
		t.Errorf("it signs %s", got)
	}
	set, err := json.Marshal(s.Keys())
	if want := `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"` + rfcKeyID + `","alg":"EdDSA","use":"sig"}]}`; err != nil || string(set) != want {
		t.Errorf("the set is %s, %v", set, err)
	}
}

// publicPEM is what 'openssl pkey -pubout' makes.
func publicPEM(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der})
}

func TestOldProofsVerifyAfterTheKeyWasChanged(t *testing.T) {
	oldText, oldID, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	newText, newID, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	before, err := ReadSigner(oldText)
	if err != nil {
		t.Fatal(err)
	}
	statement := Of(partial(), "v1.2.3", at(59))
	oldProof := signed(t, before, statement)
	for name, text := range map[string][]byte{
		"private": slices.Concat(newText, oldText),
		"public":  slices.Concat(newText, []byte("the old one:\n"), publicPEM(t, before.keys[0])),
	} {
		after, err := ReadSigner(text)
		if err != nil {
			t.Fatal(name, err)
		}
		for compact, want := range map[string]string{oldProof: oldID, signed(t, after, statement): newID} {
			if _, id, err := after.Keys().Verify(compact); err != nil || id != want {
				t.Errorf("the old key is %s: signed with %s, want %s, %v", name, id, want, err)
			}
		}
		if _, _, err := before.Keys().Verify(signed(t, after, statement)); err == nil {
			t.Errorf("the old key is %s: the new one signs, and the old set has it", name)
		}
	}
}

func TestAKeyFileThatIsNoneIsRefused(t *testing.T) {
	good, _, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	ecText := pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der})
	for name, row := range map[string]struct {
		text []byte
		want string
	}{
		"empty":                   {nil, "has no key in PEM"},
		"text":                    {[]byte("hello"), "has no key in PEM"},
		"a public key":            {publicPEM(t, rfcSigner(t).keys[0]), "begins with a public key"},
		"a public key first":      {slices.Concat(publicPEM(t, rfcSigner(t).keys[0]), good), "begins with a public key"},
		"a key of another kind":   {ecText, "key 1: is not for Ed25519"},
		"an old one of another":   {slices.Concat(good, ecText), "key 2: is not for Ed25519"},
		"a public one of another": {slices.Concat(good, publicPEM(t, ec.Public())), "key 2: is not for Ed25519"},
		"another block":           {bytes.ReplaceAll(good, []byte("PRIVATE KEY"), []byte("ENCRYPTED PRIVATE KEY")), `type "ENCRYPTED PRIVATE KEY"`},
		"a block cut off":         {good[:len(good)/2], "has a PEM block that cannot be read"},
		"a damaged first key":     {slices.Concat(bytes.Replace(good, []byte("M"), []byte("!"), 1), good), "has a PEM block that cannot be read"},
		"a begin without a dash":  {slices.Concat(good[1:], good), "has a PEM block that cannot be read"},
		"a begin that is lost":    {slices.Concat(good[bytes.IndexByte(good, '\n'):], good), "has a PEM block that cannot be read"},
		"an end that is lost":     {slices.Concat(good[:bytes.Index(good, []byte("-----END"))], good), "has a PEM block that cannot be read"},
		"nonsense in a block":     {pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: []byte("x")}), "key 1: "},
		"nonsense in a public":    {slices.Concat(good, pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: []byte("x")})), "key 2: "},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ReadSigner(row.text); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want an error with %q", err, row.want)
			}
		})
	}
}

func TestKeySets(t *testing.T) {
	s, other := newSigner(t), newSigner(t)
	mine, err := json.Marshal(s.Keys())
	if err != nil {
		t.Fatal(err)
	}
	compact := signed(t, s, Of(partial(), "v1.2.3", at(59)))
	var keys Keys
	if err := json.Unmarshal(mine, &keys); err != nil {
		t.Fatal(err)
	}
	if _, _, err := keys.Verify(compact); err != nil {
		t.Errorf("a set that was written and read again: %v", err)
	}
	x, otherX := encode(s.keys[0]), encode(other.keys[0])
	for name, row := range map[string]struct {
		set      string
		want     string // an error with this
		verifies bool
	}{
		"no JSON":                     {"<html>", "invalid character", false},
		"an envelope":                 {`{"error_code":"0"}`, "has no Ed25519 key", false},
		"a list":                      {`[]`, "is no JWK set", false},
		"only other kinds":            {`{"keys":[{"kty":"RSA"},{"kty":"OKP","crv":"X25519","x":"` + x + `"}]}`, "has no Ed25519 key", false},
		"other kinds, too":            {`{"keys":[{"kty":"RSA"},{"kty":"OKP","crv":"Ed25519","x":"` + x + `"}]}`, "", true},
		"a short key":                 {`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAA"}]}`, "key 1 has an x", false},
		"a key that is no base64":     {`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + strings.Repeat("+", 43) + `"}]}`, "key 1 has an x", false},
		"another key under this ID":   {`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"` + KeyID(s.keys[0]) + `","x":"` + otherX + `"}]}`, "", false},
		"this key under another's ID": {`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"` + KeyID(other.keys[0]) + `","x":"` + x + `"}]}`, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			var keys Keys
			err := json.Unmarshal([]byte(row.set), &keys)
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want an error with %q", err, row.want)
			}
			if _, _, err := keys.Verify(compact); (err == nil) != row.verifies {
				t.Errorf("the proof: %v", err)
			}
		})
	}
}
