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
	if secret == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return secret, nil
}
