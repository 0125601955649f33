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

// openAPI is the written contract. Every answer that a test of this package sees is
// checked against it.
//
//go:embed openapi.yaml
var openAPI []byte

// contractAt is the contract of a service that callers find below a path.
func contractAt(basePath string) []byte {
	if basePath == "" {
		return openAPI
	}
	return bytes.Replace(openAPI, []byte("servers:\n  - url: /\n"), []byte("servers:\n  - url: "+basePath+"\n"), 1)
}

// docs are the page that renders the contract and all that it needs, so that it works
// where nothing else can be reached. api/docs/scalar.txt says where Scalar is from.
//
//go:embed docs/front.html docs/index.html docs/page.js docs/scalar.js.gz docs/scalar-license.txt
var docs embed.FS

// docsPolicy lets the page load things from this service only. Scalar writes its styles into the
// page; a style cannot load what the rest forbids.
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
		panic(err) // it is missing in the pattern above
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

// asset is a file that stays the same until the next upgrade.
//
// No library does what is needed: http.ServeContent answers 412 and 416 without our envelope;
// gzhttp compresses for every request (and is a download of 40 MB); statigz reads "gzip;q=0" as a
// yes, and unpacks for every request, although anybody may send one.
type asset struct {
	contentType string
	content     []byte
	// unpack is nil for what is not compressed. It works only once and keeps the result,
	// because anybody may ask for it at any rate.
	unpack func() ([]byte, error)
}

// handler answers with the asset, or with 304 to a browser that has it. A browser asks
// each time: after an upgrade it has nothing of the version before.
func (a asset) handler() echo.HandlerFunc {
	sum := sha256.Sum256(a.content)
	tag := fmt.Sprintf("%x", sum[:16])
	return func(c echo.Context) error {
		h := c.Response().Header()
		// Weak, because the asset has the same tag compressed and not compressed.
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

// weight is the weight that an Accept or Accept-Encoding header gives to something by its name
// (RFC 9110, 12.4.2), or 0. A wildcard gives none: such a client gets the default.
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
