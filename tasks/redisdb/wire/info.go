package wire

import "strings"

// ParseInfo reads an answer to INFO, whatever its sections. go-redis's InfoMap wants to know
// the section of each name, and panics at an answer without sections, which proxies give.
func ParseInfo(text string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}
