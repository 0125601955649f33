// Package sdktest lets the official SDKs of Huawei Cloud call the API by endpoint and key alone, and has
// a real OpenID Connect provider sign the tokens of pipelines.
package sdktest

import (
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"batchreset/api"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
)

// serve starts the API, with three phones of the tenant acme.
func serve(t *testing.T, cfg api.Config) (db *redisdb.DB, url string) {
	t.Helper()
	db, _ = dbtest.Open(t, redisdb.Options{URL: "redis://" + miniredis.RunT(t).Addr(), Embedded: true})
	err := db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "phone-1", Tenant: "acme"}, {ID: "phone-2", Tenant: "acme"}, {ID: "phone-3", Tenant: "acme"}}, tasks.Actor{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.MaxInstances, cfg.MaxWaiters = 32, 100
	a := api.New(cfg, api.Store{
		Tokens: db.Tokens, Fleet: db.Fleet, Records: db.Records, Reader: db.HeldJobs, Quotas: db.Quotas,
		Policies: db.Policies, Server: db, Storage: db.Storage, Clock: db.Redis,
	}, slog.New(slog.DiscardHandler))
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	return db, server.URL
}

// addKey makes an access key of the tenant acme.
func addKey(t *testing.T, db *redisdb.DB) (access, secret string) {
	t.Helper()
	access, secret = tasks.NewAccessKey()
	if _, err := db.Tokens.AddKey(t.Context(), access, secret, tasks.Token{Tenant: "acme", Scopes: tasks.DefaultScopes}, time.Hour, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	return access, secret
}
