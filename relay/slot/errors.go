package slot

import "strings"

// A SetupError says what in PostgreSQL keeps the relay from working, and what
// the operator can do. It does not pass by itself.
type SetupError struct {
	What string
	Hint string
}

func (e *SetupError) Error() string { return e.What + "; " + e.Hint }

// SQLSTATEs that tell about a slot.
const (
	CodeBusy    = "55006" // object_in_use: another walsender has it
	CodeMissing = "42704" // undefined_object
	CodeLost    = "55000" // object_not_in_prerequisite_state: invalidated
)

// codeDenied is insufficient_privilege.
const codeDenied = "42501"

func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
