package outboxschema_test

import (
	"fmt"
	"log"
	"strings"
	"testing"

	"github.com/seed-048de892/walpost/outbox"

	"github.com/seed-048de892/walpost/outbox/outboxschema"
)

const schema = `{
	"type": "object",
	"properties": {"email": {"type": "string", "format": "email"}, "age": {"type": "integer", "minimum": 13}},
	"required": ["email"]
}`

func TestCheck(t *testing.T) {
	t.Parallel()
	check, err := outboxschema.Compile([]byte(schema))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{ // payload to what its error names; empty: accepted
		`{"email":"ada@example.com","age":36}`: "",
		`{"email":"ada"}`:                      "/email",
		`{"email":"ada@example.com","age":3}`:  "/age",
		`{}`:                                   "email",
		`{"email"`:                             "no JSON",
		`{"email":"a@b.example"} x`:            "no JSON",
	}
	for payload, want := range tests {
		err := check([]byte(payload))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("check of %s: %v, want %q", payload, err, want)
		}
	}
}

func TestRefusedSchemas(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		`{"type": "objekt"}`: "compile JSON Schema",
		`{`:                  "read JSON Schema",
		`{"$ref": "https://schemas.example/user.json"}`: "put all definitions into the schema itself",
		`{"$ref": "file:///etc/passwd"}`:                "put all definitions into the schema itself",
	}
	for schema, want := range tests {
		if _, err := outboxschema.Compile([]byte(schema)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Compile(%s): %v, want %q", schema, err, want)
		}
	}
}

func ExampleCompile() {
	check, err := outboxschema.Compile([]byte(schema))
	if err != nil {
		log.Fatal(err)
	}
	type userCreated struct {
		Email string `json:"email"`
	}
	created := outbox.Typed[userCreated]{Name: "UserCreated", Topic: "user.created", AggregateType: "user", Check: check}
	_, err = created.Event("42", 1, userCreated{Email: "nobody"})
	fmt.Println(strings.SplitN(err.Error(), "\n", 2)[0])
	// Output: check payload of UserCreated: jsonschema validation failed with 'urn:payload#'
}
