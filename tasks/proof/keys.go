package proof

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Keys are public keys that proofs may be signed with. In JSON they are a JWK set (RFC 7517).
type Keys []ed25519.PublicKey

// jwk is a key of a JWK set, as RFC 8037 has it for Ed25519.
type jwk struct {
	Type      string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	ID        string `json:"kid"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
}

type jwkSet struct {
	Keys []jwk `json:"keys"`
}

const (
	keyType = "OKP"
	curve   = "Ed25519"
)

// KeyID is the ID of a key: its thumbprint (RFC 7638).
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"` + curve + `","kty":"` + keyType + `","x":"` + encode(key) + `"}`))
	return encode(sum[:])
}

// byID is the key with an ID, or nil.
func (k Keys) byID(id string) ed25519.PublicKey {
	if i := slices.IndexFunc(k, func(key ed25519.PublicKey) bool { return KeyID(key) == id }); i >= 0 {
		return k[i]
	}
	return nil
}

// MarshalJSON makes a JWK set.
func (k Keys) MarshalJSON() ([]byte, error) {
	set := jwkSet{Keys: []jwk{}}
	for _, key := range k {
		set.Keys = append(set.Keys, jwk{keyType, curve, encode(key), KeyID(key), algorithm, "sig"})
	}
	return json.Marshal(set)
}

// UnmarshalJSON reads a JWK set. Keys of other kinds are left out; IDs are made from the keys.
func (k *Keys) UnmarshalJSON(text []byte) error {
	var set jwkSet
	if err := json.Unmarshal(text, &set); err != nil {
		return errors.New("is no JWK set: an object with a list called keys")
	}
	*k = nil
	for i, one := range set.Keys {
		if one.Type != keyType || one.Curve != curve {
			continue
		}
		x, err := decode(one.X)
		if err != nil || len(x) != ed25519.PublicKeySize {
			return fmt.Errorf("key %d has an x that is no Ed25519 key", i+1)
		}
		*k = append(*k, x)
	}
	if len(*k) == 0 {
		return errors.New("has no Ed25519 key")
	}
	return nil
}

// Signer signs proofs with one key.
type Signer struct {
	private ed25519.PrivateKey
	keys    Keys
}

// Keys are the signer's own key, and those of its file that signed before.
func (s *Signer) Keys() Keys { return s.keys }

// NewKey makes a key that ReadSigner can read: PKCS #8 in PEM.
func NewKey() (text []byte, id string, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, "", err
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), KeyID(public), nil
}

// The PEM blocks that a file can have.
const (
	privateBlock = "PRIVATE KEY" // PKCS #8
	publicBlock  = "PUBLIC KEY"  // PKIX
)

// ReadSigner reads the keys of a file: the first one signs and is private, further ones signed
// before, and may be public. An error is a sentence about the file.
func ReadSigner(text []byte) (*Signer, error) {
	s := &Signer{}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		private, public, err := readBlock(block)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", len(s.keys)+1, err)
		}
		if len(s.keys) == 0 {
			s.private = private
		}
		s.keys = append(s.keys, public)
	}
	switch {
	// A block that is damaged would be passed over, and an older key would sign. So would one
	// with a line that has lost a dash, or is not there.
	case strings.Count(string(text), "-BEGIN ") != len(s.keys), strings.Count(string(text), "-END ") != len(s.keys):
		return nil, errors.New("has a PEM block that cannot be read")
	case len(s.keys) == 0:
		return nil, errors.New("has no key in PEM: 'batchreset proof new-key' makes one")
	case s.private == nil:
		return nil, errors.New("begins with a public key: the first key signs, and must be private")
	}
	return s, nil
}

func readBlock(block *pem.Block) (ed25519.PrivateKey, ed25519.PublicKey, error) {
	switch block.Type {
	case privateBlock:
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, nil, err
		}
		if private, ok := parsed.(ed25519.PrivateKey); ok {
			return private, private.Public().(ed25519.PublicKey), nil
		}
	case publicBlock:
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, nil, err
		}
		if public, ok := parsed.(ed25519.PublicKey); ok {
			return nil, public, nil
		}
	default:
		return nil, nil, fmt.Errorf("is a PEM block of type %q, not %q or %q", block.Type, privateBlock, publicBlock)
	}
	return nil, nil, errors.New("is not for Ed25519")
}

// encode and decode are base64url without padding.
func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decode takes the one spelling that encode makes; Go's decoder passes over line ends.
func decode(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err == nil && encode(b) != s {
		err = errors.New("it has line ends")
	}
	return b, err
}
