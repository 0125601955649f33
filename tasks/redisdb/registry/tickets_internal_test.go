package registry

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"testing"
	"time"
)

// Whatever somebody sends as a ticket: it opens nothing, unless it was sealed, for this job.
func FuzzATicketThatWasNotSealedOpensNothing(f *testing.F) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails, says crypto/rand
	block, err := aes.NewCipher(key)
	if err != nil {
		f.Fatal(err)
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		f.Fatal(err)
	}
	const token = "key:4ZK2JQ6ZR7MA3XW5BQ2C"
	until := time.UnixMilli(1_700_000_000_000)
	text := append(binary.BigEndian.AppendUint64(nil, uint64(until.UnixMilli())), token...)
	sealed := seal.Seal(nil, nil, text, []byte("job"))
	good := base64.RawURLEncoding.EncodeToString(sealed)
	if hash, end, valid := openTicket(seal, good, "job"); !valid || hash != token || !end.Equal(until) {
		f.Fatalf("a sealed ticket: %s until %s, %t", hash, end, valid)
	}
	if _, _, valid := openTicket(nil, good, "job"); valid {
		f.Fatal("a ticket opens what nobody has sealed yet")
	}
	f.Add(good, "another job")
	f.Add(good+"A", "job")
	f.Add(good[:len(good)-2], "job")
	f.Add("", "")
	f.Add(base64.RawURLEncoding.EncodeToString(seal.Seal(nil, nil, []byte("short"), []byte("job"))), "job")
	f.Fuzz(func(t *testing.T, ticket, job string) {
		said, err := base64.RawURLEncoding.DecodeString(ticket)
		itself := err == nil && bytes.Equal(said, sealed) && job == "job"
		if hash, _, valid := openTicket(seal, ticket, job); valid && !itself {
			t.Errorf("%q opens job %q with the token %s", ticket, job, hash)
		}
	})
}
