package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/api"
	"batchreset/cmd/harness/faketime"
)

func TestAFloodOfTroublesDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		server := api.NewHTTPServer(nil, slog.New(slog.NewJSONHandler(&log, nil)))
		type line struct {
			Level, Text string
			LeftOut     int `json:"left_out"`
		}
		lines := func() (all []line) {
			defer log.Reset()
			for text := range strings.Lines(log.String()) {
				var one line
				if err := json.Unmarshal([]byte(text), &one); err != nil {
					t.Fatal(err)
				}
				all = append(all, one)
			}
			return all
		}
		flood := func() {
			for n := range 1000 {
				server.ErrorLog.Printf("http: TLS handshake error from 192.0.2.%d:%d: EOF", n%256, n)
				server.ErrorLog.Printf("http: Accept error: accept tcp 0.0.0.0:8080: accept4: too many open files; retrying in %dms", n)
			}
		}
		flood()
		server.ErrorLog.Print("http: panic serving 192.0.2.1:5: boom\ngoroutine 7 [running]:")
		want := []line{
			{"WARN", "http: TLS handshake error from 192.0.2.0:0: EOF", 0},
			{"WARN", "http: Accept error: accept tcp 0.0.0.0:8080: accept4: too many open files; retrying in 0ms", 0},
			{"WARN", "http: panic serving 192.0.2.1:5: boom\ngoroutine 7 [running]:", 0},
		}
		if got := lines(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("logged %+v", got)
		}
		faketime.Pass(10 * time.Second)
		flood()
		if got := lines(); len(got) != 2 || got[0].LeftOut != 999 || got[1].LeftOut != 999 {
			t.Errorf("logged later %+v", got)
		}
	})
}
