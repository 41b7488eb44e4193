package user

import (
	"time"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
)

// The types of the events that the service records.
const (
	UserCreated        = "UserCreated"        // payload: the whole [State]
	UserUpdated        = "UserUpdated"        // payload: an [Updated]
	UserLoggedIn       = "UserLoggedIn"       // payload: a [LoggedIn]
	UserDeactivated    = "UserDeactivated"    // payload: a [LifeEnded]
	UserCreationFailed = "UserCreationFailed" // payload: a [CreationFailed]
)

// The types of the aggregates. An attempt that was refused made no user: it is
// an aggregate of its own, named by its command, and has no place among a
// user's versions.
const (
	AggregateUser     = "user"
	AggregateCreation = "user_creation"
)

// define makes the definition of users. Each payload folds onto the state
// before by JSON Merge Patch and gives the state after, as the functions here
// do.
func define() (*aggregate.Definition[State], error) {
	return aggregate.New(aggregate.Config[State]{
		Type: AggregateUser,
		Events: []aggregate.EventType[State]{
			aggregate.On(outbox.Typed[State]{Name: UserCreated, Topic: "user.created"}, func(s *State, e State) { *s = e }),
			aggregate.On(outbox.Typed[Updated]{Name: UserUpdated, Topic: "user.updated"}, (*State).update),
			aggregate.On(outbox.Typed[LoggedIn]{Name: UserLoggedIn, Topic: "user.logged_in"}, (*State).logIn),
			aggregate.On(outbox.Typed[LifeEnded]{Name: UserDeactivated, Topic: "user.deactivated"}, (*State).deactivate),
		},
	})
}

// creationFailed is the type of [UserCreationFailed].
func creationFailed() outbox.Typed[CreationFailed] {
	return outbox.Typed[CreationFailed]{Name: UserCreationFailed, Topic: "user.creation_failed", AggregateType: AggregateCreation}
}

// A Change is what every event behind [UserCreated] tells.
type Change struct {
	UpdatedAt time.Time `json:"updatedAt"`
	Version   int64     `json:"version"`
}

func (s *State) change(c Change) { s.UpdatedAt, s.Version = c.UpdatedAt, c.Version }

// Updated tells the members of a profile that changed.
type Updated struct {
	Username    *string `json:"username,omitempty"`
	Email       *string `json:"email,omitempty"`
	FullName    *string `json:"fullName,omitempty"`
	DateOfBirth patched `json:"dateOfBirth,omitzero"` // null: removed
	Change
}

func (s *State) update(e Updated) {
	set := func(field, value *string) {
		if value != nil {
			*field = *value
		}
	}
	set(&s.Username, e.Username)
	set(&s.Email, e.Email)
	set(&s.FullName, e.FullName)
	if e.DateOfBirth.set {
		s.DateOfBirth = e.DateOfBirth.value
	}
	s.change(e.Change)
}

// LoggedIn tells of a log-in, and how many there have been.
type LoggedIn struct {
	LoginCount int64     `json:"loginCount"`
	LastLogin  LastLogin `json:"lastLogin"`
	Change
}

func (s *State) logIn(e LoggedIn) {
	s.LoginCount, s.LastLogin = e.LoginCount, &e.LastLogin
	s.change(e.Change)
}

// LifeEnded tells that a user was deactivated.
type LifeEnded struct {
	Status Status `json:"status"`
	Change
}

func (s *State) deactivate(e LifeEnded) {
	s.Status = e.Status
	s.change(e.Change)
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
