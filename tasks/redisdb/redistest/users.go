package redistest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var passwords = regexp.MustCompile(`>[A-Z]+_PASSWORD`)

// StartWithUsers starts a redis-server with the users of a file like deploy/redis/users.acl.
func StartWithUsers(t testing.TB, file string) *Server {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	filled := filepath.Join(t.TempDir(), "users.acl")
	must(t, os.WriteFile(filled, passwords.ReplaceAllFunc(text, func(p []byte) []byte { return []byte(strings.ToLower(string(p))) }), 0o600))
	return Setup{Password: passwordOf("default"), Config: []string{"aclfile " + filled}}.Start(t)
}

func passwordOf(user string) string { return user + "_password" }

// URLOf is URL for one of the users that StartWithUsers has read.
func (s *Server) URLOf(user string) string {
	return "redis://" + user + ":" + passwordOf(user) + "@" + s.Addr
}
