// Package seal keeps secrets that the service must be able to read again, such as the secret of an access
// key or of a webhook endpoint, so that who reads Redis or a copy of its disk does not have them.
//
// A secret is sealed with AES-256-GCM, a random nonce, and its place as additional data: what is sealed
// for one place does not open at another, so that nobody who can write Redis puts a known secret there.
// The text is "sealed:1:" + ID of the key + ":" + base64 of nonce and ciphertext.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// prefix begins every sealed secret. No secret of ours begins with it.
const prefix = "sealed:1:"

// keySize is that of AES-256.
const keySize = 32

// ErrNotOpened says that a sealed secret cannot be opened: its key is not there, or it was changed or moved.
var ErrNotOpened = errors.New("a secret in Redis is sealed, and cannot be opened")

// Keys seal and open secrets. The nil Keys leaves secrets as they are, and opens only such.
type Keys struct {
	newest string // ID of the key that seals
	all    map[string]cipher.AEAD
}

// Read reads the keys of a file: each a line, 32 bytes in base64, as 'openssl rand -base64 32' makes them.
// The first one seals; those after it open what they have sealed before. Empty lines and lines that begin
// with # do not count. An error is a sentence about the file, and has nothing secret in it.
func Read(text []byte) (*Keys, error) {
	k := &Keys{all: map[string]cipher.AEAD{}}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, aead, err := readKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d %w", n, err)
		}
		if k.all[id] != nil {
			return nil, fmt.Errorf("line %d has a key for the second time", n)
		}
		if k.newest == "" {
			k.newest = id
		}
		k.all[id] = aead
	}
	if k.newest == "" {
		return nil, errors.New("has no key: 'openssl rand -base64 32' makes one")
	}
	return k, nil
}

func readKey(line string) (id string, aead cipher.AEAD, err error) {
	key, err := base64.StdEncoding.Strict().DecodeString(line)
	if err != nil {
		return "", nil, errors.New("is not base64: a key is made with 'openssl rand -base64 32'")
	}
	if len(key) != keySize {
		return "", nil, fmt.Errorf("is a key of %d bytes, not %d: a key is made with 'openssl rand -base64 32'", len(key), keySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", nil, err
	}
	if aead, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:4]), aead, nil
}

// Seal seals a secret for a place, such as "token:" and a hash.
func (k *Keys) Seal(secret, place string) string {
	if k == nil || secret == "" {
		return secret
	}
	return prefix + k.newest + ":" + base64.StdEncoding.EncodeToString(k.all[k.newest].Seal(nil, nil, []byte(secret), []byte(place)))
}

// Open opens what is kept at a place. stale says that [Keys.Seal] would keep it in another way: it is not
// sealed yet, or with an older key. Errors wrap ErrNotOpened.
func (k *Keys) Open(kept, place string) (secret string, stale bool, err error) {
	rest, sealed := strings.CutPrefix(kept, prefix)
	if !sealed {
		return kept, k != nil && kept != "", nil
	}
	id, text, _ := strings.Cut(rest, ":")
	if k == nil {
		return "", false, fmt.Errorf("%w: --secret-key-file is not given, and key %.8s has sealed it", ErrNotOpened, id)
	}
	aead := k.all[id]
	if aead == nil {
		return "", false, fmt.Errorf("%w: --secret-key-file does not have the key %.8s, which has sealed it", ErrNotOpened, id)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", false, fmt.Errorf("%w: it is damaged", ErrNotOpened)
	}
	plain, err := aead.Open(nil, nil, raw, []byte(place))
	if err != nil {
		return "", false, fmt.Errorf("%w: it is damaged, or belongs to another entry", ErrNotOpened)
	}
	return string(plain), id != k.newest, nil
}

// Sealed reports whether what is kept is sealed.
func Sealed(kept string) bool { return strings.HasPrefix(kept, prefix) }
