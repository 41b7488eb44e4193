package user

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed-048de892/walpost/outbox"
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

// A User is the row: the state and what only the service knows.
type User struct {
	State
	PasswordHash string
}

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

// newUser makes version 1 of a user.
func newUser(id outbox.ID, ask CreationAsk, passwordHash string, now time.Time) *User {
	return &User{PasswordHash: passwordHash, State: State{
		ID: id, Username: ask.Username, Email: ask.Email, FullName: ask.FullName, DateOfBirth: ask.DateOfBirth,
		Status: Active, Version: 1, CreatedAt: now, UpdatedAt: now,
	}}
}

// change makes u's next version and gives the payload that every event of it
// has: version and updatedAt, which never goes back though replicas' clocks
// differ.
func (u *User) change(now time.Time) (patch map[string]any, err error) {
	if u.Status != Active {
		return nil, errNotActive
	}
	u.Version++
	if now.After(u.UpdatedAt) {
		u.UpdatedAt = now
	}
	return map[string]any{"version": u.Version, "updatedAt": u.UpdatedAt}, nil
}

// A change of a user's profile: nil and unset members stay as they are.
type profileChange struct {
	username, email, fullName *string
	dateOfBirth               *string
	setDateOfBirth            bool // dateOfBirth counts, nil removes it
}

// update applies c and gives UserUpdated's payload, nil where c changes
// nothing.
func (u *User) update(c profileChange, p policy, now time.Time) (map[string]any, error) {
	if u.Status != Active {
		return nil, errNotActive
	}
	patch := map[string]any{}
	set := func(name string, field, value *string) {
		if value != nil && *value != *field {
			*field = *value
			patch[name] = *value
		}
	}
	set("username", &u.Username, c.username)
	set("email", &u.Email, c.email)
	set("fullName", &u.FullName, c.fullName)
	if c.setDateOfBirth && !equal(c.dateOfBirth, u.DateOfBirth) {
		u.DateOfBirth = c.dateOfBirth
		patch["dateOfBirth"] = c.dateOfBirth // null removes it
	}
	if len(patch) == 0 {
		return nil, nil
	}
	if _, ok := patch["email"]; ok {
		if err := p.checkEmail(u.Email); err != nil {
			return nil, err
		}
	}
	if _, ok := patch["dateOfBirth"]; ok {
		if err := p.checkBirth(u.DateOfBirth, now); err != nil {
			return nil, err
		}
	}
	common, err := u.change(now)
	maps.Copy(patch, common)
	return patch, err
}

// logIn applies a log-in and gives UserLoggedIn's payload.
func (u *User) logIn(ip, userAgent string, now time.Time) (map[string]any, error) {
	patch, err := u.change(now)
	if err != nil {
		return nil, err
	}
	u.LoginCount++
	u.LastLogin = &LastLogin{At: u.UpdatedAt, IP: ip, UserAgent: userAgent}
	patch["loginCount"], patch["lastLogin"] = u.LoginCount, u.LastLogin
	return patch, nil
}

// deactivate ends u's life and gives UserDeactivated's payload.
func (u *User) deactivate(now time.Time) (map[string]any, error) {
	patch, err := u.change(now)
	if err != nil {
		return nil, err
	}
	u.Status = Deactivated
	patch["status"] = u.Status
	return patch, nil
}

func equal(a, b *string) bool {
	return a == b || a != nil && b != nil && *a == *b
}
