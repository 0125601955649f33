package ops

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"time"

	"github.com/labstack/echo/v4"
)

//go:embed site
var files embed.FS

// assetTypes are the files of the site that browsers ask for, by how their names end.
var assetTypes = map[string]string{
	".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// assetRoutes serve the files that pages consist of. They are open to everybody, and say nothing about the service.
func (s *site) assetRoutes(e *echo.Echo) {
	err := fs.WalkDir(files, "site", func(name string, _ fs.DirEntry, err error) error {
		kind := assetTypes[path.Ext(name)]
		if err != nil || kind == "" {
			return err
		}
		content, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		e.GET("/"+name, asset(path.Base(name), kind, content))
		return nil
	})
	if err != nil {
		panic(err) // the files are in the program
	}
}

// asset answers with a file. Browsers keep it, and ask whether it has changed.
func asset(name, kind string, content []byte) echo.HandlerFunc {
	sum := sha256.Sum256(content)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set(echo.HeaderCacheControl, "no-cache")
		h.Set("ETag", tag)
		h.Set(echo.HeaderContentType, kind)
		h.Set(echo.HeaderXContentTypeOptions, "nosniff")
		http.ServeContent(c.Response(), c.Request(), name, time.Time{}, bytes.NewReader(content))
		return nil
	}
}
