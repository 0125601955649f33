package redisdb

// workerOf is the ID of the worker process that made a token, or empty: versions before made
// tokens that say nothing of it.
func workerOf(token string) string {
	if len(token) != 16 {
		return ""
	}
	return token[:8]
}

// workerKey exists while the worker process is alive.
func workerKey(id string) string { return "reset:worker:{" + id + "}" }
