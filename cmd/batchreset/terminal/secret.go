package terminal

import (
	"fmt"
	"os"
	"strings"
)

// ReadSecret reads a secret from a file, without the line end that editors add.
func ReadSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(b))
	switch {
	case secret == "":
		return "", fmt.Errorf("%s is empty", path)
	case strings.HasPrefix(secret, "\ufeff"): // as some editors begin a file; it would count as a part
		return "", fmt.Errorf("%s begins with a byte order mark: save it as plain UTF-8", path)
	}
	return secret, nil
}
