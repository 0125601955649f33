package tasks

import (
	"fmt"
	"strings"
)

// Limits of a batch. The first KooPhone document allows 32 instances, newer ones 100; an operator
// chooses.
const (
	DefaultMaxInstances = 32
	MaxMaxInstances     = 100
	MaxInstanceIDLength = 64
)

const instanceIDLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-"

// CheckInstanceID returns a sentence that says what is wrong with an instance
// ID, or nil. An ID ends up in Redis keys and in upstream URLs, hence the narrow
// alphabet.
func CheckInstanceID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("is empty")
	case len(id) > MaxInstanceIDLength:
		return fmt.Errorf("is %d bytes long, the limit is %d", len(id), MaxInstanceIDLength)
	case strings.Trim(id, instanceIDLetters) != "":
		return fmt.Errorf("%.80q has characters other than A-Z a-z 0-9 . _ : -", id)
	case id == "." || id == "..":
		return fmt.Errorf("%q is not an instance ID", id)
	}
	return nil
}

// Batch checks the instance IDs of a request and folds repeats into one,
// keeping the order of first mention. The limit counts what was sent, repeats
// included. Errors have the code BadRequest and name the field.
func Batch(instanceIDs []string, limit int) ([]string, error) {
	switch n := len(instanceIDs); {
	case n == 0:
		return nil, Errorf(BadRequest, "instance_ids must list at least one instance")
	case n > limit:
		return nil, Errorf(BadRequest, "instance_ids lists %d instances, the limit is %d", n, limit)
	}
	seen := make(map[string]bool, len(instanceIDs))
	batch := make([]string, 0, len(instanceIDs))
	for i, id := range instanceIDs {
		if err := CheckInstanceID(id); err != nil {
			return nil, Errorf(BadRequest, "instance_ids[%d] %s", i, err)
		}
		if !seen[id] {
			seen[id] = true
			batch = append(batch, id)
		}
	}
	return batch, nil
}
