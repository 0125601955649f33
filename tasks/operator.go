package tasks

import (
	"fmt"
	"regexp"
)

// Role is what an operator may do on the operators' site.
type Role string

// The roles.
const (
	RoleViewer   Role = "viewer"   // look
	RoleOperator Role = "operator" // look and change
)

// Roles lists every role.
var Roles = []Role{RoleViewer, RoleOperator}

// Operator is somebody who may log in to the operators' site.
type Operator struct {
	Name      string `json:"name"`
	Role      Role   `json:"role"`
	CreatedAt Time   `json:"created_at,omitzero"`
	// PasswordHash is bcrypt's: see [golang.org/x/crypto/bcrypt].
	PasswordHash string `json:"-"`
}

var operatorName = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`)

// CheckOperatorName returns a sentence that says what is wrong with a name, or nil.
func CheckOperatorName(name string) error {
	if !operatorName.MatchString(name) {
		return fmt.Errorf("%.80q is not a name: 1 to 64 characters of A-Z a-z 0-9 . _ @ -", name)
	}
	return nil
}

const (
	minPassword = 12
	// maxPassword is as much as bcrypt reads.
	maxPassword = 72
)

// CheckPassword returns a sentence that says what is wrong with a password, or nil.
func CheckPassword(password string) error {
	switch n := len(password); {
	case n < minPassword:
		return fmt.Errorf("must have at least %d characters", minPassword)
	case n > maxPassword:
		return fmt.Errorf("must have at most %d bytes", maxPassword)
	}
	return nil
}
