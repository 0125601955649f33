package sdkhmac

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Why a request is not accepted. The errors of [Read] and [Signature.Verify] wrap one of them
// and say more. Their texts have nothing secret in them.
var (
	// ErrNone is no refusal: the request has no signature of this family, and may have other
	// credentials.
	ErrNone = errors.New("the request is not signed")
	// ErrAlgorithm is a signature that only another algorithm can verify.
	ErrAlgorithm = errors.New("the signature has an algorithm that is not accepted here")
	ErrMalformed = errors.New("the signed request is malformed")
	// ErrDate is a date too far from ours: an old request, or a wrong clock.
	ErrDate = errors.New("the date of the signature is not accepted")
	// ErrMismatch is a request that is not the one that was signed, or another secret.
	ErrMismatch = errors.New("the signature does not fit the request")
)

// Signature is what a request says about its own signature. Nothing of it is verified before
// [Signature.Verify].
type Signature struct {
	Access string // the access key
	Date   time.Time
	// MAC is the signature itself. The same one is the same request, sent again; or one like it,
	// made by the same client in the same second.
	MAC [sha256.Size]byte

	request *http.Request
	headers []string
	date    string
}

// Read reads the signature of a request that a server has received.
func Read(r *http.Request) (*Signature, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return nil, ErrNone
	}
	scheme, rest, _ := strings.Cut(values[0], " ")
	switch {
	case !strings.HasPrefix(scheme, "SDK-") && !strings.HasPrefix(scheme, "V11-"):
		return nil, ErrNone
	case scheme == "V11-HMAC-SHA256":
		return nil, fmt.Errorf("%w: %s, whose key is derived; use credentials without a derived predicate, which sign with %s", ErrAlgorithm, scheme, Algorithm)
	case scheme != Algorithm:
		return nil, fmt.Errorf("%w: %.40q; use %s", ErrAlgorithm, scheme, Algorithm)
	case len(values) > 1:
		return nil, fmt.Errorf("%w: Authorization is there %d times", ErrMalformed, len(values))
	}
	s := &Signature{request: r}
	if err := s.parse(rest); err != nil {
		return nil, err
	}
	return s, s.readDate()
}

// parse reads "Access=…, SignedHeaders=…, Signature=…".
func (s *Signature) parse(text string) error {
	fields := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := fields[name]; twice || value == "" {
			return fmt.Errorf("%w: Authorization has %.40q empty or twice", ErrMalformed, name)
		}
		fields[name] = value
	}
	s.Access = fields["Access"]
	s.headers = strings.Split(fields["SignedHeaders"], ";")
	mac := fields["Signature"]
	if len(fields) != 3 || s.Access == "" || fields["SignedHeaders"] == "" {
		return fmt.Errorf("%w: Authorization must have Access, SignedHeaders and Signature, and nothing else", ErrMalformed)
	}
	// One request must not have two spellings: a replay would look like another request.
	if n, err := hex.Decode(s.MAC[:], []byte(mac[:min(len(mac), 2*sha256.Size)])); err != nil || n != sha256.Size || hex.EncodeToString(s.MAC[:]) != mac {
		return fmt.Errorf("%w: Signature must be %d lower-case hexadecimal digits", ErrMalformed, 2*sha256.Size)
	}
	if !slices.Contains(s.headers, strings.ToLower(dateHeader)) {
		return fmt.Errorf("%w: SignedHeaders must list %s", ErrMalformed, strings.ToLower(dateHeader))
	}
	return nil
}

func (s *Signature) readDate() (err error) {
	s.date = s.request.Header.Get(dateHeader)
	if s.Date, err = time.Parse(dateLayout, s.date); err != nil {
		return fmt.Errorf("%w: %s must be a time such as %s", ErrMalformed, dateHeader, dateLayout)
	}
	return nil
}

// Verify says whether the request was signed with the secret of its access key, and not longer
// ago, or further ahead, than tolerance; Huawei's gateways accept 15 minutes. Body is the body
// as it was received. The error is nil or wraps one of the errors above.
func (s *Signature) Verify(secret string, body []byte, now time.Time, tolerance time.Duration) error {
	if secret == "" {
		return fmt.Errorf("%w: there is no secret", ErrMismatch)
	}
	if off := now.Sub(s.Date); off.Abs() > tolerance {
		return fmt.Errorf("%w: it differs from this server's clock by %s, and may by %s", ErrDate, off.Round(time.Second), tolerance)
	}
	want, err := sum(s.request, body, s.headers, s.date, secret)
	if err != nil {
		return err
	}
	if !hmac.Equal(want, s.MAC[:]) {
		return fmt.Errorf("%w: another secret, or something was changed on the way (signed: method, path, query, body, %.200s)", ErrMismatch, strings.Join(s.headers, ", "))
	}
	return nil
}
