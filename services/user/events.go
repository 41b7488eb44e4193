package user

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/seed-048de892/walpost/outbox"
)

// The types of the events that the service records.
const (
	UserCreated        = "UserCreated"        // payload: the whole [State]
	UserUpdated        = "UserUpdated"        // payload: the members that changed, null for one removed
	UserLoggedIn       = "UserLoggedIn"       // payload: lastLogin, loginCount, updatedAt, version
	UserDeactivated    = "UserDeactivated"    // payload: status, updatedAt, version
	UserCreationFailed = "UserCreationFailed" // payload: a [CreationFailed]
)

// The types of the aggregates. An attempt that was refused made no user: it is
// an aggregate of its own, named by its command, and has no place among a
// user's versions.
const (
	AggregateUser     = "user"
	AggregateCreation = "user_creation"
)

// route gives the topic of a type of event.
func route(eventType string) string {
	switch eventType {
	case UserCreated:
		return "user.created"
	case UserUpdated:
		return "user.updated"
	case UserLoggedIn:
		return "user.logged_in"
	case UserDeactivated:
		return "user.deactivated"
	case UserCreationFailed:
		return "user.creation_failed"
	}
	return "unknown.events" // a type that nobody routed is kept, not dropped
}

// CreationFailed is the payload of [UserCreationFailed]: what was asked,
// without the password, and which business rule refused it.
type CreationFailed struct {
	CommandID string       `json:"commandId"`
	Request   CreationAsk  `json:"request"`
	Reason    RefusedState `json:"reason"`
	FailedAt  time.Time    `json:"failedAt"`
}

// A CreationAsk is what was asked of a creation that failed.
type CreationAsk struct {
	Username    string  `json:"username"`
	Email       string  `json:"email"`
	FullName    string  `json:"fullName"`
	DateOfBirth *string `json:"dateOfBirth,omitempty"`
}

// A RefusedState is why a creation failed.
type RefusedState struct {
	Rule    string `json:"rule"`
	Field   string `json:"field"`
	Message string `json:"message"`
}

// event makes the event that brought u to its version. A payload folds onto
// the state before by JSON Merge Patch and gives the state after.
func event(u *User, eventType string, payload any, headers map[string]string) (outbox.Event, error) {
	b, err := json.Marshal(payload)
	if err != nil {
		return outbox.Event{}, fmt.Errorf("encode %s of user %s: %w", eventType, u.ID, err)
	}
	return outbox.Event{
		Topic: route(eventType), AggregateType: AggregateUser, AggregateID: u.ID.String(), AggregateVersion: u.Version,
		Type: eventType, Payload: b, Headers: headers,
	}, nil
}
