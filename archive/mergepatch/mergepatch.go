// Package mergepatch applies JSON Merge Patches (RFC 7396) without touching
// what they leave alone: numbers keep every digit they were written with.
package mergepatch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A Document is a JSON value that patches are applied to. The zero Document
// has no value yet. It is not safe for concurrent use.
type Document struct {
	value any // map[string]any, []any, string, json.Number, bool or nil
	set   bool
}

// Apply applies one patch: members of an object replace those of the document,
// recursively, null removes one, and any other value replaces the whole. An
// error, which says where the patch is not JSON, leaves the document as it
// was.
//
// As in encoding/json, of a name that stands twice the last one counts.
func (d *Document) Apply(patch []byte) error {
	p, err := decode(patch)
	if err != nil {
		return fmt.Errorf("read merge patch: %w", err)
	}
	d.value, d.set = merge(d.value, p), true
	return nil
}

// IsZero reports whether no patch has been applied.
func (d *Document) IsZero() bool { return !d.set }

// MarshalJSON gives the document, an object's members sorted by name.
func (d *Document) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(d.value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// merge is the function MergePatch of RFC 7396, section 2. It may change
// target, and keeps parts of patch.
func merge(target, patch any) any {
	members, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = make(map[string]any, len(members))
	}
	for name, value := range members {
		if value == nil {
			delete(object, name)
		} else {
			object[name] = merge(object[name], value)
		}
	}
	return object
}

func decode(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the value")
	}
	return v, nil
}
