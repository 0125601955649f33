package tasks

// Space is what fills a server of Redis, as far as somebody has looked. All but Memory, Keys and Files is an estimate if
// Looked is less than Keys. Sizes are in bytes.
type Space struct {
	Address string `json:"address"`
	Memory  int64  `json:"used_memory"`
	Keys    int64  `json:"keys"`
	// Looked is how many keys were looked at, Refused how many of them the Redis user may not ask about.
	Looked  int64 `json:"keys_looked_at"`
	Refused int64 `json:"keys_refused,omitempty"`
	// Families are kinds of keys, largest first.
	Families []KeyFamily `json:"families"`
	// Largest are the largest keys that were looked at.
	Largest []KeySize `json:"largest"`
	// Lasting are keys that should expire and do not, a few of LastingCount that were met.
	Lasting      []string   `json:"without_expiry,omitempty"`
	LastingCount int64      `json:"without_expiry_met"`
	Files        RedisFiles `json:"files"`
}

// KeyFamily is a kind of keys.
type KeyFamily struct {
	Name  string `json:"name"`
	Keys  int64  `json:"keys"`
	Bytes int64  `json:"bytes"`
}

// KeySize is a key.
type KeySize struct {
	Key    string `json:"key"`
	Family string `json:"family"`
	Bytes  int64  `json:"bytes"`
}

// RedisFiles is how a server keeps its data on disk.
type RedisFiles struct {
	AppendOnly   bool  `json:"append_only"`
	AppendBytes  int64 `json:"append_only_bytes,omitempty"`
	WriteFails   bool  `json:"append_only_write_fails,omitempty"`
	RewriteFails bool  `json:"append_only_rewrite_fails,omitempty"`
	// SavedAt is when the last snapshot was written, Unsaved how many changes came after it.
	SavedAt   Time  `json:"snapshot_at,omitzero"`
	Unsaved   int64 `json:"changes_since_snapshot"`
	SaveFails bool  `json:"snapshot_fails,omitempty"`
}
