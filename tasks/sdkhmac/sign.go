package sdkhmac

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Key is an access key with its secret.
type Key struct {
	Access string // sent with each request
	Secret string // never sent
}

// Sign sets X-Sdk-Date and Authorization of a request that is about to be sent. Body is what
// will be sent as its body. Headers names those that are signed beside X-Sdk-Date; "Host" is
// allowed. They must be set, each once, and stay as they are.
func Sign(r *http.Request, body []byte, key Key, at time.Time, headers ...string) error {
	if key.Access == "" || key.Secret == "" {
		return errors.New("sdkhmac: the access key or its secret is empty")
	}
	names, err := signedNames(headers)
	if err != nil {
		return err
	}
	date := at.UTC().Format(dateLayout)
	r.Header.Set(dateHeader, date)
	mac, err := sum(r, body, names, date, key.Secret)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", fmt.Sprintf("%s Access=%s, SignedHeaders=%s, Signature=%s",
		Algorithm, key.Access, strings.Join(names, ";"), hex.EncodeToString(mac)))
	return nil
}

// signedNames is the list as it is sent.
func signedNames(headers []string) ([]string, error) {
	names := []string{strings.ToLower(dateHeader)}
	for _, name := range headers {
		if strings.Contains(name, "_") {
			return nil, fmt.Errorf("sdkhmac: header %q cannot be signed: many proxies drop headers with _", name)
		}
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
