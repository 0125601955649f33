package ops

import (
	"net/http"
	"time"

	"github.com/hibiken/asynq"
	"github.com/hibiken/asynqmon"

	"batchreset/api/ops/login"
)

// Frozen lets no time pass between tries to log in.
func (cfg Config) Frozen() Config {
	at := time.Now()
	cfg.now = func() time.Time { return at }
	return cfg
}

// Pages are the routes that answer GET on a site with an issuer.
func Pages(store Store) (routes []string) {
	_, e := newSite(Config{Store: store, Redis: asynqmon.Options{RedisConnOpt: asynq.RedisClientOpt{}}, Issuer: new(login.Issuer)})
	for _, r := range e.Routes() {
		if r.Method == http.MethodGet {
			routes = append(routes, r.Path)
		}
	}
	return routes
}

// Queries are the parameters of pages, by route.
func Queries() map[string][]string {
	names := map[string][]string{}
	for route, known := range queries {
		for _, p := range known {
			names[route] = append(names[route], p.name)
		}
	}
	return names
}
