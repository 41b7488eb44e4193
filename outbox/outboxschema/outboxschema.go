// Package outboxschema checks the payloads of package outbox with JSON Schema
// when they are written. It is a module of its own, so that outbox brings no
// schema library.
package outboxschema

import (
	"bytes"
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Compile reads a JSON Schema of draft 4 to 2020-12 and gives the function for
// [outbox.Typed.Check]: an error of it names each place in the payload that
// breaks the schema. The function is safe for use by several goroutines.
//
// Formats ("email", "date-time") are asserted. References to other documents
// are refused, so that nothing is read from disk or network.
func Compile(schema []byte) (check func(payload []byte) error, err error) {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return nil, fmt.Errorf("read JSON Schema: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	compiler.UseLoader(nowhere{})
	const name = "urn:payload" // a relative name would stand in errors as a path of this machine
	if err := compiler.AddResource(name, document); err != nil {
		return nil, fmt.Errorf("read JSON Schema: %w", err)
	}
	compiled, err := compiler.Compile(name)
	if err != nil {
		return nil, fmt.Errorf("compile JSON Schema: %w", err)
	}
	return func(payload []byte) error {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(payload))
		if err != nil {
			return fmt.Errorf("payload is no JSON: %w", err)
		}
		return compiled.Validate(value)
	}, nil
}

// nowhere refuses to load other documents.
type nowhere struct{}

func (nowhere) Load(url string) (any, error) {
	return nil, fmt.Errorf("reference to %s: put all definitions into the schema itself, under $defs", url)
}
