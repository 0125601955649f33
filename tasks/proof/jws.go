package proof

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	algorithm = "EdDSA"
	// A proof's typ keeps anything else that is signed with the same key from being taken for one.
	jobType = "batchreset-proof+jws"
	runType = "batchreset-run-proof+jws"
)

// header is a proof's header, all of it.
type header struct {
	Algorithm string `json:"alg"`
	Key       string `json:"kid"`
	Type      string `json:"typ"`
}

// Sign makes the proof of a statement.
func (s *Signer) Sign(statement Statement) (compact string, err error) {
	return s.sign(jobType, statement)
}

func (s *Signer) sign(typ string, statement any) (compact string, err error) {
	head, err := json.Marshal(header{algorithm, KeyID(s.keys[0]), typ})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(statement)
	if err != nil {
		return "", err
	}
	signed := encode(head) + "." + encode(payload)
	return signed + "." + encode(ed25519.Sign(s.private, []byte(signed))), nil
}

// Verify returns what a proof states, and the ID of the key that it is signed with, if it is
// just as one of the keys has signed it, and does not contradict itself. An error is a sentence
// about the proof.
func (k Keys) Verify(compact string) (statement Statement, keyID string, err error) {
	if keyID, err = k.open(jobType, compact, &statement); err != nil {
		return Statement{}, "", err
	}
	if err := statement.check(); err != nil {
		return Statement{}, "", fmt.Errorf("it is signed, but contradicts itself: %w", err)
	}
	return statement, keyID, nil
}

// open reads what is signed.
func (k Keys) open(typ, compact string, statement any) (keyID string, err error) {
	p, err := split(typ, compact)
	if err != nil {
		return "", err
	}
	key := k.byID(p.header.Key)
	switch {
	case key == nil:
		return "", fmt.Errorf("it names the key %.80q, which is not in the key set", p.header.Key)
	case !ed25519.Verify(key, []byte(p.signed), p.signature):
		return "", errors.New("the signature does not fit: it was changed, or another key has signed it")
	}
	if err := json.Unmarshal(p.payload, statement); err != nil {
		return "", fmt.Errorf("it is signed, but is no statement: %w", err)
	}
	return p.header.Key, nil
}

// parts are a proof that was taken apart.
type parts struct {
	header             header
	signed             string
	payload, signature []byte
}

// split takes a proof apart, if it is spelled as sign does.
func split(typ, compact string) (p parts, err error) {
	if compact == "" {
		return p, errors.New("it is no proof: it is empty")
	}
	if i := strings.IndexFunc(compact, foreign); i >= 0 {
		_, length := utf8.DecodeRuneInString(compact[i:])
		return p, fmt.Errorf("it is no proof: byte %d is %q, which no proof has; the file must have the proof alone, as plain text", i+1, compact[i:i+length])
	}
	texts := strings.Split(compact, ".")
	if len(texts) != 3 {
		return p, fmt.Errorf("it is no proof: it has %d parts, not 3", len(texts))
	}
	var decoded [3][]byte
	for i, text := range texts {
		if decoded[i], err = decode(text); err != nil {
			return p, fmt.Errorf("it is no proof: part %d: %w", i+1, err)
		}
	}
	p = parts{signed: texts[0] + "." + texts[1], payload: decoded[1], signature: decoded[2]}
	p.header, err = readHeader(typ, decoded[0])
	return p, err
}

// foreign says whether a character is in no proof: see encode.
func foreign(r rune) bool {
	return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.", r)
}

// readHeader refuses any header but that of a proof, whatever its fields would mean.
func readHeader(typ string, text []byte) (head header, err error) {
	if err := json.Unmarshal(text, &head); err != nil {
		return head, fmt.Errorf("it is no proof: its header is not JSON: %w", err)
	}
	if head.Algorithm != algorithm {
		return head, fmt.Errorf("its header names the algorithm %.80q, not %s", head.Algorithm, algorithm)
	}
	if same, err := json.Marshal(header{algorithm, head.Key, typ}); err != nil || string(same) != string(text) {
		return head, fmt.Errorf("its header is %.200q, which no proof has", text)
	}
	return head, nil
}
