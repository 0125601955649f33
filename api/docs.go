package api

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
)

// docs are the page that renders the contract and all that it needs, so that it works
// where nothing else can be reached. api/docs/scalar.txt says where Scalar is from.
//
//go:embed docs/index.html docs/page.js docs/scalar.js.gz docs/scalar-license.txt
var docs embed.FS

// docsPolicy lets the page ask nobody but us for anything. Scalar writes its styles
// into the page; a style cannot load what the rest forbids.
const docsPolicy = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; " +
	"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// asset is an embedded file.
type asset struct {
	content     []byte
	contentType string
	compressed  bool // with gzip
	tag         string
}

// file returns the handler of one of docs.
func file(name, contentType string) echo.HandlerFunc {
	content, err := docs.ReadFile(name)
	if err != nil {
		panic(err) // the pattern above has forgotten it
	}
	sum := sha256.Sum256(content)
	return asset{content, contentType, strings.HasSuffix(name, ".gz"), fmt.Sprintf("%x", sum[:16])}.serve
}

// serve answers with the file, or with 304 to a browser that has it. A browser asks
// each time: after an upgrade it has no file of the version before.
func (a asset) serve(c echo.Context) error {
	h := c.Response().Header()
	// Weak, because the compressed file and the other have one tag.
	h.Set("ETag", "W/"+strconv.Quote(a.tag))
	h.Set(echo.HeaderCacheControl, "no-cache")
	h.Set(echo.HeaderXContentTypeOptions, "nosniff")
	h.Set(echo.HeaderContentSecurityPolicy, docsPolicy)
	h.Set(echo.HeaderReferrerPolicy, "no-referrer")
	if a.compressed {
		h.Set(echo.HeaderVary, echo.HeaderAcceptEncoding)
	}
	if holds(c, a.tag) {
		return c.NoContent(http.StatusNotModified)
	}
	if !a.compressed {
		return c.Blob(http.StatusOK, a.contentType, a.content)
	}
	if acceptsGzip(c.Request().Header.Values(echo.HeaderAcceptEncoding)) {
		h.Set(echo.HeaderContentEncoding, "gzip")
		return c.Blob(http.StatusOK, a.contentType, a.content)
	}
	plain, err := gzip.NewReader(bytes.NewReader(a.content))
	if err != nil {
		return err
	}
	return c.Stream(http.StatusOK, a.contentType, plain)
}

// acceptsGzip reads Accept-Encoding headers (RFC 9110, 12.5.3). Who accepts anything
// without a name has the plain file, which is right, too.
func acceptsGzip(headers []string) bool {
	for coding := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		name, weight, _ := strings.Cut(coding, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		_, q, weighted := strings.Cut(weight, "=")
		value, err := strconv.ParseFloat(strings.TrimSpace(q), 64)
		return !weighted || err == nil && value > 0
	}
	return false
}
