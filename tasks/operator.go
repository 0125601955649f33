package tasks

import (
	"fmt"
	"regexp"
	"slices"
)

// Role is what an operator may do on the operators' site: see Rights.
type Role string

// The roles.
const (
	RoleViewer   Role = "viewer"
	RoleApprover Role = "approver"
	RoleOperator Role = "operator"
	RoleAdmin    Role = "admin"
)

// Roles lists every role, from the one that may do least.
var Roles = []Role{RoleViewer, RoleApprover, RoleOperator, RoleAdmin}

// Right is something that a role allows.
type Right string

// The rights.
const (
	RightLook    Right = "look"    // see everything but secrets
	RightApprove Right = "approve" // decide about runs that wait for approval
	RightAct     Right = "act"     // halt, resume, cancel, retry, pause, and what else stops or starts work
	RightManage  Right = "manage"  // say who may do what: limits, callers, fleet, webhooks, operators
)

// Rights are what each role allows.
var Rights = map[Role][]Right{
	RoleViewer:   {RightLook},
	RoleApprover: {RightLook, RightApprove},
	RoleOperator: {RightLook, RightApprove, RightAct},
	RoleAdmin:    {RightLook, RightApprove, RightAct, RightManage},
}

// May reports whether a role allows something. One that is not known allows nothing.
func (r Role) May(right Right) bool { return slices.Contains(Rights[r], right) }

// Operator is somebody who may log in to the operators' site.
type Operator struct {
	Name      string `json:"name"`
	Role      Role   `json:"role"`
	CreatedAt Time   `json:"created_at,omitzero"`
	// InvitedUntil is until when a link lets them choose a password; zero: there is none.
	InvitedUntil Time `json:"invited_until,omitzero"`
	// SecondFactor says since when the log-in asks for a code after the password; zero: it does not.
	SecondFactor Time `json:"second_factor,omitzero"`
	// PasswordHash is bcrypt's: see [golang.org/x/crypto/bcrypt]. It is empty for somebody who has no
	// password yet, and for who is known by an issuer.
	PasswordHash string `json:"-"`
	// Enrolled tells one second factor of theirs from the next.
	Enrolled string `json:"-"`
	// Issuer is the host of the OpenID Connect issuer that knows them; empty: they are in the list of
	// this service. IssuerSettings changes with the settings that let them in.
	Issuer         string `json:"-"`
	IssuerSettings string `json:"-"`
}

// ErrLastAdmin says that a change would leave nobody who may say who may do what.
var ErrLastAdmin error = Errorf(Forbidden, "This is the only admin with a password: first make somebody else an admin.")

// ErrOperatorsReadOnly says that a process cannot change operators.
var ErrOperatorsReadOnly error = Errorf(Forbidden, "The Redis user of this process must not write operators. Use 'batchreset operator' with one that may, or see \"Who may change operators\" in deploy/README.md.")

// Visit is where a log-in comes from: an address, and what the browser calls itself.
type Visit struct{ From, Agent string }

// Session is somebody who is logged in to the operators' site.
type Session struct {
	ID       string // tells it from the others of its operator; it is not its secret
	Operator string
	Role     Role   // of an issuer's operator; empty: the one that the operator has
	Issuer   string // see Operator
	Visit
	Since, LastUsed, Until Time
}

// LastLogin is when and how somebody has logged in to the operators' site.
type LastLogin struct {
	At     Time   `json:"at"`
	Role   Role   `json:"role"`
	Issuer string `json:"issuer,omitempty"` // see Operator
	From   string `json:"from,omitempty"`
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
