package sdkhmac

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	// Algorithm is the scheme of the Authorization header.
	Algorithm = "SDK-HMAC-SHA256"

	dateHeader = "X-Sdk-Date"
	hashHeader = "X-Sdk-Content-Sha256"
	dateLayout = "20060102T150405Z"
	// unsigned stands for the hash of a body that is not signed.
	unsigned = "UNSIGNED-PAYLOAD"
)

// sum is the signature of a request: what both sides compute. The names of the headers are
// those of the Authorization header, as they stand there.
func sum(r *http.Request, body []byte, headers []string, date, secret string) ([]byte, error) {
	request, err := canonical(r, body, headers)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%s\n%s\n%s", Algorithm, date, hash([]byte(request)))
	return mac.Sum(nil), nil
}

// canonical is the text of a request that is signed.
func canonical(r *http.Request, body []byte, headers []string) (string, error) {
	path, err := canonicalPath(r.URL)
	if err != nil {
		return "", err
	}
	query, err := canonicalQuery(r.URL)
	if err != nil {
		return "", err
	}
	lines, err := canonicalHeaders(r, headers)
	if err != nil {
		return "", err
	}
	digest, err := bodyHash(r.Header, body)
	if err != nil {
		return "", err
	}
	return strings.Join([]string{r.Method, path, query, lines, strings.Join(headers, ";"), digest}, "\n"), nil
}

// canonicalPath encodes segment by segment, so that an encoded slash stays what it is.
func canonicalPath(u *url.URL) (string, error) {
	segments := strings.Split(u.EscapedPath(), "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil {
			return "", fmt.Errorf("%w: its path has a broken escape", ErrMalformed)
		}
		segments[i] = escape(plain)
	}
	path := strings.Join(segments, "/")
	if !strings.HasSuffix(path, "/") {
		path += "/"
	}
	return path, nil
}

func canonicalQuery(u *url.URL) (string, error) {
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", fmt.Errorf("%w: its query cannot be read", ErrMalformed)
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		for _, value := range slices.Sorted(slices.Values(values[name])) {
			pairs = append(pairs, escape(name)+"="+escape(value))
		}
	}
	return strings.Join(pairs, "&"), nil
}

// canonicalHeaders has a line for each name. A header that is missing or given twice is no
// part of anything that was signed.
func canonicalHeaders(r *http.Request, names []string) (string, error) {
	var b strings.Builder
	for _, name := range names {
		values := r.Header.Values(name)
		if name == "host" { // net/http keeps it elsewhere
			values = []string{cmp.Or(r.Host, r.URL.Host)}
		}
		if len(values) != 1 {
			return "", fmt.Errorf("%w: the signed header %.80q is there %d times, and must be once", ErrMalformed, name, len(values))
		}
		b.WriteString(name + ":" + strings.TrimSpace(values[0]) + "\n")
	}
	return b.String(), nil
}

// bodyHash is the hash of the body as the request states it, which is checked, or else the
// hash itself.
func bodyHash(h http.Header, body []byte) (string, error) {
	digest := hash(body)
	switch stated := h.Values(hashHeader); {
	case len(stated) == 0:
		return digest, nil
	case len(stated) > 1:
		return "", fmt.Errorf("%w: %s is there %d times", ErrMalformed, hashHeader, len(stated))
	case stated[0] == digest, stated[0] == unsigned && len(body) == 0:
		return stated[0], nil
	case stated[0] == unsigned:
		return "", fmt.Errorf("%w: the body is not signed (%s: %s)", ErrMismatch, hashHeader, unsigned)
	}
	return "", fmt.Errorf("%w: %s is not the hash of the body", ErrMismatch, hashHeader)
}

func hash(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

// escape percent-encodes everything but A-Z a-z 0-9 - _ . ~
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
