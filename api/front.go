package api

import (
	"bytes"
	"encoding/json"
	"html/template"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// frontPage is for a person who knows only the address of the API.
var frontPage = template.Must(template.ParseFS(docs, "docs/front.html"))

// frontData says the same to a program. The links are relative: a proxy may have put a prefix
// before the path.
type frontData struct {
	Service string `json:"service"`
	Version string `json:"version"`
	Docs    string `json:"docs"`
	OpenAPI string `json:"openapi"`
}

// front says what this service is and where to read more: as a page to clients that ask for HTML,
// as browsers do, and as JSON to all others.
func front(version string) echo.HandlerFunc {
	var page bytes.Buffer
	if err := frontPage.Execute(&page, version); err != nil {
		panic(err) // it has only one field
	}
	data, err := json.Marshal(envelope{Code: tasks.OK, Message: "ok", Data: frontData{"batchreset", version, "./docs", "./openapi.yaml"}})
	if err != nil {
		panic(err) // it is text
	}
	asPage := asset{contentType: "text/html; charset=utf-8", content: page.Bytes()}.handler()
	asJSON := asset{contentType: echo.MIMEApplicationJSON, content: append(data, '\n')}.handler()
	return func(c echo.Context) error {
		c.Response().Header().Add(echo.HeaderVary, echo.HeaderAccept)
		accept := c.Request().Header.Values(echo.HeaderAccept)
		if weight(accept, "text/html") > weight(accept, echo.MIMEApplicationJSON) {
			return asPage(c)
		}
		return asJSON(c)
	}
}
