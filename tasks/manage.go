package tasks

import (
	"crypto/rand"
	"regexp"
)

// Managed is a part of what an admin manages, for which the user of Redis may lack the rights.
type Managed string

// What is managed.
const (
	ManagedLimits     Managed = "limits"
	ManagedCallers    Managed = "callers"
	ManagedFleet      Managed = "fleet"
	ManagedProtection Managed = "protection" // of instances that are in the fleet
	ManagedWebhooks   Managed = "webhooks"
)

var formID = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// NewFormID makes the ID of a form that is sent once only.
func NewFormID() string { return rand.Text() }

// ValidFormID reports whether text can be a NewFormID.
func ValidFormID(text string) bool { return formID.MatchString(text) }
