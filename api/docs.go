package api

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"
)

// docs are the page that renders the contract and all that it needs, so that it works
// where nothing else can be reached. api/docs/scalar.txt says where Scalar is from.
//
//go:embed docs/front.html docs/index.html docs/page.js docs/scalar.js.gz docs/scalar-license.txt
var docs embed.FS

// docsPolicy lets the page ask nobody but us for anything. Scalar writes its styles
// into the page; a style cannot load what the rest forbids.
const docsPolicy = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; " +
	"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// docsFile is where one of docs is served, and as what.
type docsFile struct{ path, name, contentType string }

var docsFiles = []docsFile{
	{"/docs", "docs/index.html", "text/html; charset=utf-8"},
	{"/docs/page.js", "docs/page.js", "text/javascript; charset=utf-8"},
	{"/docs/scalar.js", "docs/scalar.js.gz", "text/javascript; charset=utf-8"},
	{"/docs/scalar-license.txt", "docs/scalar-license.txt", "text/plain; charset=utf-8"},
}

func (f docsFile) handler() echo.HandlerFunc {
	content, err := docs.ReadFile(f.name)
	if err != nil {
		panic(err) // the pattern above has forgotten it
	}
	a := asset{contentType: f.contentType, content: content}
	if strings.HasSuffix(f.name, ".gz") {
		a.unpack = sync.OnceValues(func() ([]byte, error) { return unpack(content) })
	}
	return a.handler()
}

func unpack(content []byte) ([]byte, error) {
	plain, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(plain)
}

// asset is something that is the same for everybody until the next upgrade.
//
// It has a few lines of its own because what there is does less: http.ServeContent answers
// 412 and 416 without our envelope, and of the gzip handlers gzhttp compresses for every
// request (and is a download of 40 MB), and statigz takes "gzip;q=0" for a yes and unpacks for
// every request, which anybody may send.
type asset struct {
	contentType string
	content     []byte
	// unpack is nil for what is not compressed. It works once, for the first who wants that:
	// everybody may ask for it, as often as they like.
	unpack func() ([]byte, error)
}

// handler answers with the asset, or with 304 to a browser that has it. A browser asks
// each time: after an upgrade it has nothing of the version before.
func (a asset) handler() echo.HandlerFunc {
	sum := sha256.Sum256(a.content)
	tag := fmt.Sprintf("%x", sum[:16])
	return func(c echo.Context) error {
		h := c.Response().Header()
		// Weak, because the compressed asset and the other have one tag.
		h.Set("ETag", "W/"+strconv.Quote(tag))
		h.Set(echo.HeaderCacheControl, "no-cache")
		h.Set(echo.HeaderXContentTypeOptions, "nosniff")
		h.Set(echo.HeaderContentSecurityPolicy, docsPolicy)
		h.Set(echo.HeaderReferrerPolicy, "no-referrer")
		if a.unpack != nil {
			h.Add(echo.HeaderVary, echo.HeaderAcceptEncoding)
		}
		if holds(c, tag) {
			return c.NoContent(http.StatusNotModified)
		}
		content := a.content
		if a.unpack != nil && weight(c.Request().Header.Values(echo.HeaderAcceptEncoding), "gzip") > 0 {
			h.Set(echo.HeaderContentEncoding, "gzip")
		} else if a.unpack != nil {
			var err error
			if content, err = a.unpack(); err != nil {
				return err
			}
		}
		h.Set(echo.HeaderContentLength, strconv.Itoa(len(content)))
		return c.Blob(http.StatusOK, a.contentType, content)
	}
}

// weight is how much an Accept or Accept-Encoding header likes something that it names
// (RFC 9110, 12.4.2); 0 if it does not. Who accepts anything without a name has what there is
// to be had without asking.
func weight(headers []string, name string) float64 {
	for one := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		named, parameters, _ := strings.Cut(one, ";")
		if !strings.EqualFold(strings.TrimSpace(named), name) {
			continue
		}
		_, q, weighted := strings.Cut(parameters, "q=")
		if !weighted {
			return 1
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(q), 64)
		if err != nil {
			return 0
		}
		return value
	}
	return 0
}
