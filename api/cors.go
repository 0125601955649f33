package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

// cors lets pages of the allowed origins call the API from a browser and read the answers. A page
// must have a token and send it as a header. Nothing that a browser sends by itself, such as a
// cookie, gives access, so requests from browsers need no other protection.
func cors(origins []string) echo.MiddlewareFunc {
	return middleware.CORSWithConfig(middleware.CORSConfig{
		// AllowOrigins would read * and ? in a name as wildcards.
		AllowOriginFunc: func(origin string) (bool, error) { return slices.Contains(origins, origin), nil },
		AllowMethods:    []string{http.MethodGet, http.MethodHead, http.MethodPost},
		AllowHeaders: []string{
			"X-Auth-Token", "Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Prefer", "Last-Event-ID", "X-Request-Id", "Traceparent",
		},
		ExposeHeaders: []string{"Location", "ETag", "Retry-After", "Preference-Applied", "X-Request-Id"},
		MaxAge:        int((10 * time.Minute).Seconds()),
	})
}

// hostLetters are those that browsers send in the host of an origin, and their capitals.
const hostLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]"

// CheckOrigin returns a sentence that says what is wrong with an origin, or nil. It must be
// written as browsers send it, because the two are compared byte by byte.
func CheckOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Host, hostLetters) != "" || u.Host == "" {
		return fmt.Errorf("%.200q is not an origin such as https://app.example", origin)
	}
	port := map[string]string{"http": ":80", "https": ":443"}[u.Scheme]
	if sent := u.Scheme + "://" + strings.ToLower(strings.TrimSuffix(u.Host, port)); sent != origin {
		return fmt.Errorf("%.200q is not how a browser writes this origin; write %s", origin, sent)
	}
	return nil
}
