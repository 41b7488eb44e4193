package user

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
)

// A Status is where a user is in its life: active from its creation on, until
// it is deactivated for good.
type Status string

// The statuses of a user.
const (
	Active      Status = "active"
	Deactivated Status = "deactivated"
)

// State is a user as everybody may see it: the row without the password's
// hash. The service answers with it, UserCreated carries it, and the payloads
// of a user's events, folded by JSON Merge Patch in the order of their
// versions, give exactly its JSON. Times are UTC in microseconds, as
// PostgreSQL keeps them.
type State struct {
	ID          outbox.ID  `json:"id"`
	Username    string     `json:"username"`
	Email       string     `json:"email"`
	FullName    string     `json:"fullName"`
	DateOfBirth *string    `json:"dateOfBirth,omitempty"` // 2006-01-02
	Status      Status     `json:"status"`
	LoginCount  int64      `json:"loginCount"`
	LastLogin   *LastLogin `json:"lastLogin,omitempty"`
	Version     int64      `json:"version"` // counts changes from 1
	CreatedAt   time.Time  `json:"createdAt"`
	UpdatedAt   time.Time  `json:"updatedAt"`
}

// LastLogin is where from and when a user last logged in. All of its members
// are always there, so that folding leaves none of the log-in before.
type LastLogin struct {
	At        time.Time `json:"at"`
	IP        string    `json:"ip"`
	UserAgent string    `json:"userAgent"`
}

// A User is the aggregate: its methods are the commands, each of which records
// what happens or refuses. The password's hash is no part of it; it stands in
// the row only.
type User struct{ *aggregate.Root[State] }

var (
	errNotFound     = errors.New("no such user")
	errNotActive    = errors.New("user is deactivated")
	errLoginRefused = errors.New("user is deactivated")
	errCredentials  = errors.New("wrong user name or password")
	errNoSession    = errors.New("no valid session")
)

// A lockedError says that a name had too many failed log-ins.
type lockedError struct{ until time.Time }

func (e *lockedError) Error() string {
	return "locked out until " + e.until.UTC().Format(time.RFC3339)
}

// A ruleError says which business rule refuses a command.
type ruleError struct {
	rule    string // unique, minimum_age, email_domain
	field   string
	message string
}

func (e *ruleError) Error() string { return fmt.Sprintf("%s: %s", e.field, e.message) }

// minimumAge is how many years old a user with a known date of birth must be.
const minimumAge = 13

// policy is the business rules that need no database.
type policy struct {
	domains []string // of e-mail addresses, in lower case; empty allows all
}

func (p policy) checkEmail(email string) error {
	domain := strings.ToLower(email[strings.LastIndexByte(email, '@')+1:])
	if len(p.domains) == 0 || slices.Contains(p.domains, domain) {
		return nil
	}
	return &ruleError{rule: "email_domain", field: "email", message: "its domain is not one of those allowed here"}
}

func (policy) checkBirth(dateOfBirth *string, now time.Time) error {
	if dateOfBirth == nil {
		return nil
	}
	born, err := time.Parse(time.DateOnly, *dateOfBirth)
	if err != nil {
		return fmt.Errorf("parse date of birth: %w", err)
	}
	if born.AddDate(minimumAge, 0, 0).After(now) {
		return &ruleError{rule: "minimum_age", field: "dateOfBirth", message: fmt.Sprintf("must be at least %d years ago", minimumAge)}
	}
	return nil
}

// create makes the user.
func (u User) create(id outbox.ID, ask CreationAsk, now time.Time) error {
	return aggregate.Record(u.Root, State{
		ID: id, Username: ask.Username, Email: ask.Email, FullName: ask.FullName, DateOfBirth: ask.DateOfBirth,
		Status: Active, Version: 1, CreatedAt: now, UpdatedAt: now,
	})
}

// update changes the profile by the rules of p. Where ask changes nothing,
// nothing happens.
func (u User) update(ask UpdateBody, p policy, now time.Time) error {
	s := u.State()
	if s.Status != Active {
		return errNotActive
	}
	other := func(asked patched, is string) *string {
		if asked.value == nil || *asked.value == is {
			return nil
		}
		return asked.value
	}
	e := Updated{Username: other(ask.Username, s.Username), Email: other(ask.Email, s.Email), FullName: other(ask.FullName, s.FullName)}
	if ask.DateOfBirth.set && !equal(ask.DateOfBirth.value, s.DateOfBirth) {
		e.DateOfBirth = ask.DateOfBirth
	}
	if e == (Updated{}) {
		return nil
	}
	if e.Email != nil {
		if err := p.checkEmail(*e.Email); err != nil {
			return err
		}
	}
	if err := p.checkBirth(e.DateOfBirth.value, now); err != nil {
		return err
	}
	e.Change = s.next(now)
	return aggregate.Record(u.Root, e)
}

// logIn counts a log-in.
func (u User) logIn(ip, userAgent string, now time.Time) error {
	s := u.State()
	if s.Status != Active {
		return errNotActive
	}
	next := s.next(now)
	return aggregate.Record(u.Root, LoggedIn{
		Change: next, LoginCount: s.LoginCount + 1, LastLogin: LastLogin{At: next.UpdatedAt, IP: ip, UserAgent: userAgent},
	})
}

// deactivate ends the user's life.
func (u User) deactivate(now time.Time) error {
	s := u.State()
	if s.Status != Active {
		return errNotActive
	}
	return aggregate.Record(u.Root, LifeEnded{Change: s.next(now), Status: Deactivated})
}

// next is what makes the state behind s. Its time never goes back, though
// replicas' clocks differ.
func (s *State) next(now time.Time) Change {
	if now.Before(s.UpdatedAt) {
		now = s.UpdatedAt
	}
	return Change{UpdatedAt: now, Version: s.Version + 1}
}

func equal(a, b *string) bool {
	return a == b || a != nil && b != nil && *a == *b
}
