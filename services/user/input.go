package user

import (
	"bytes"
	"encoding/json"
	"net/mail"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// special is what a password must have one of.
const special = "!@#$%^&*"

func usernameProblem(s string) string {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') {
			return "use 3 to 30 letters and digits"
		}
	}
	if len(s) < 3 || len(s) > 30 {
		return "use 3 to 30 letters and digits"
	}
	return ""
}

func emailProblem(s string) string {
	address, err := mail.ParseAddress(s)
	// A display name or comment parses too, but is more than the address.
	if err != nil || address.Address != s || len(s) > 254 || strings.ContainsFunc(s, unicode.IsControl) {
		return "must be an e-mail address of at most 254 characters"
	}
	return ""
}

func passwordProblem(s string) string {
	if utf8.RuneCountInString(s) < 8 ||
		!strings.ContainsFunc(s, unicode.IsLower) || !strings.ContainsFunc(s, unicode.IsUpper) ||
		!strings.ContainsFunc(s, unicode.IsDigit) || !strings.ContainsAny(s, special) {
		return "use at least 8 characters with a lower-case and an upper-case letter, a digit and one of " + special
	}
	return ""
}

func fullNameProblem(s string) string {
	if n := utf8.RuneCountInString(s); n < 2 || n > 100 || strings.TrimSpace(s) == "" {
		return "use 2 to 100 characters"
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "must not hold control characters"
	}
	return ""
}

func birthProblem(s string, now time.Time) string {
	born, err := time.Parse(time.DateOnly, s)
	switch {
	case err != nil || born.Year() < 1:
		return "must be a date like 1990-12-31"
	case born.After(now):
		return "must not be in the future"
	}
	return ""
}

// CreateBody is what POST /users takes.
type CreateBody struct {
	Username    string  `json:"username" minLength:"3" maxLength:"30" pattern:"^[A-Za-z0-9]+$" example:"ada"`
	Email       string  `json:"email" format:"email" maxLength:"254" example:"ada@example.org"`
	Password    string  `json:"password" minLength:"8" format:"password" doc:"At least 8 characters with a lower-case and an upper-case letter, a digit and one of !@#$%^&*." example:"Secret12!"`
	FullName    string  `json:"fullName" minLength:"2" maxLength:"100" example:"Ada Lovelace"`
	DateOfBirth *string `json:"dateOfBirth,omitempty" format:"date" example:"1990-12-10"`
}

// Resolve checks the input rules; huma calls it.
func (b *CreateBody) Resolve(huma.Context) []error {
	var found problems
	found.add("username", usernameProblem(b.Username))
	found.add("email", emailProblem(b.Email))
	found.add("password", passwordProblem(b.Password))
	found.add("fullName", fullNameProblem(b.FullName))
	if b.DateOfBirth != nil {
		found.add("dateOfBirth", birthProblem(*b.DateOfBirth, time.Now()))
	}
	return found
}

// UpdateBody is what PATCH /users/{id} takes, a JSON Merge Patch: what is
// missing stays, and null removes the date of birth.
type UpdateBody struct {
	Username    patched `json:"username,omitempty"`                                                   //nolint:modernize // huma reads omitempty as optional
	Email       patched `json:"email,omitempty"`                                                      //nolint:modernize // huma reads omitempty as optional
	FullName    patched `json:"fullName,omitempty"`                                                   //nolint:modernize // huma reads omitempty as optional
	DateOfBirth patched `json:"dateOfBirth,omitempty" doc:"A date like 1990-12-31; null removes it."` //nolint:modernize // huma reads omitempty as optional
}

// Resolve checks the input rules; huma calls it.
func (b *UpdateBody) Resolve(huma.Context) []error {
	var found problems
	for _, field := range []struct {
		name  string
		value patched
		check func(string) string
	}{
		{"username", b.Username, usernameProblem}, {"email", b.Email, emailProblem}, {"fullName", b.FullName, fullNameProblem},
	} {
		switch {
		case field.value.set && field.value.value == nil:
			found.add(field.name, "must not be null")
		case field.value.set:
			found.add(field.name, field.check(*field.value.value))
		}
	}
	if b.DateOfBirth.value != nil {
		found.add("dateOfBirth", birthProblem(*b.DateOfBirth.value, time.Now()))
	}
	return found
}

// patched is a string in a merge patch: missing, null or given.
type patched struct {
	value *string
	set   bool
}

// UnmarshalJSON reads a string or null.
func (p *patched) UnmarshalJSON(b []byte) error {
	p.set = true
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	return json.Unmarshal(b, &p.value)
}

// MarshalJSON writes a string or null; a missing one is to be left out.
func (p patched) MarshalJSON() ([]byte, error) { return json.Marshal(p.value) }

// Schema describes it to huma.
func (*patched) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Nullable: true}
}

// problems collects what is wrong with a body.
type problems []error

func (p *problems) add(field, message string) {
	if message != "" {
		*p = append(*p, &huma.ErrorDetail{Location: "body." + field, Message: message})
	}
}
