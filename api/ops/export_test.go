package ops

import "time"

// Frozen lets no time pass between tries to log in.
func (cfg Config) Frozen() Config {
	at := time.Now()
	cfg.now = func() time.Time { return at }
	return cfg
}
