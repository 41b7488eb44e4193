package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// A headerReader turns the headers of an event into those of a record. The
// zero headerReader is ready; it remembers names, of which there are few, and
// reuses what it returns.
type headerReader struct {
	names   names
	headers []cloudevent.Header
}

// read reads the headers of r: a row's flat JSON object or an envelope's list.
// It gives the content type apart, since it is an attribute. The values may
// point into r; names are our own.
func (h *headerReader) read(r *row) (contentType string, headers []cloudevent.Header, err error) {
	h.headers = h.headers[:0]
	for _, header := range r.Headers {
		h.headers = append(h.headers, cloudevent.Header{Name: h.names.get(header.Name), Value: header.Value})
	}
	if len(r.json) > 0 {
		if err := h.readJSON(r.json); err != nil {
			return "", nil, err
		}
	}
	kept := h.headers[:0]
	for _, header := range h.headers {
		if err := checkHeader(header.Name); err != nil {
			return "", nil, err
		}
		if header.Name == outbox.HeaderContentType {
			contentType = header.Value
			continue
		}
		kept = append(kept, header)
	}
	return contentType, kept, nil
}

// checkHeader refuses a name that the record needs for something else.
func checkHeader(name string) error {
	if strings.HasPrefix(name, "ce_") {
		return fmt.Errorf("header %q: names beginning with ce_ belong to CloudEvents", name)
	}
	return nil
}

// readJSON keeps the JSON text of a value that is no string: whoever wrote the
// row by hand meant it so.
func (h *headerReader) readJSON(data []byte) error {
	if h.readPlain(data) {
		return nil
	}
	h.headers = h.headers[:0]
	return h.readAny(data)
}

// readPlain reads the form that almost all headers have, as jsonb prints it:
// {"name": "value", …} without an escape. It reports false on anything else.
func (h *headerReader) readPlain(data []byte) bool {
	rest, ok := cut(data, '{')
	if !ok {
		return false
	}
	for {
		var name, value []byte
		if name, rest, ok = plainString(rest); !ok {
			return false
		}
		if rest, ok = cut(rest, ':'); !ok {
			return false
		}
		if value, rest, ok = plainString(rest); !ok {
			return false
		}
		h.headers = append(h.headers, cloudevent.Header{Name: h.names.get(view(name)), Value: view(value)})
		if rest, ok = cut(rest, ','); ok {
			continue
		}
		rest, ok = cut(rest, '}')
		return ok && len(rest) == 0
	}
}

// cut takes c off the front, behind spaces.
func cut(b []byte, c byte) ([]byte, bool) {
	for len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	if len(b) == 0 || b[0] != c {
		return b, false
	}
	return b[1:], true
}

func plainString(b []byte) (s, rest []byte, ok bool) {
	b, ok = cut(b, '"')
	if !ok {
		return nil, nil, false
	}
	for i, c := range b {
		if c == '"' {
			return b[:i], b[i+1:], true
		}
		if c == '\\' || c < ' ' {
			return nil, nil, false
		}
	}
	return nil, nil, false
}

// readAny reads any JSON object.
func (h *headerReader) readAny(data []byte) error {
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return errors.New("headers are no JSON object")
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return fmt.Errorf("headers: %w", err)
		}
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			return fmt.Errorf("headers: %w", err)
		}
		value := string(raw)
		if raw[0] == '"' {
			if err := json.Unmarshal(raw, &value); err != nil {
				return fmt.Errorf("headers: %w", err)
			}
		}
		h.headers = append(h.headers, cloudevent.Header{Name: name.(string), Value: value}) // a key is a string
	}
	if _, err := decoder.Token(); err != nil {
		return fmt.Errorf("headers: %w", err)
	}
	return nil
}
