package outbox

import (
	"cmp"
	"context"
	"slices"

	"github.com/seed-048de892/walpost/outbox/envelope"
)

// merge appends to dst the headers with which e is written: its own, then the
// hooks', then those of the context's metadata m, if any, that nobody has set.
// They are sorted as jsonb keeps them, short names first, so that an event
// gets the same record in every [Mode].
func (w *Writer) merge(ctx context.Context, dst []envelope.Header, e *Event, m *Metadata) []envelope.Header {
	first := len(dst)
	for name, value := range e.Headers {
		dst = append(dst, envelope.Header{Name: name, Value: value})
	}
	if len(w.Hooks) > 0 {
		dst = w.hookHeaders(ctx, dst, first, e)
	}
	if m != nil {
		for _, f := range m.fields() {
			if *f.value != "" && find(dst[first:], f.name) < 0 {
				dst = append(dst, envelope.Header{Name: f.name, Value: *f.value})
			}
		}
	}
	slices.SortFunc(dst[first:], func(a, b envelope.Header) int {
		return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	return dst
}

func (w *Writer) hookHeaders(ctx context.Context, dst []envelope.Header, first int, e *Event) []envelope.Header {
	own := len(dst)
	for _, hook := range w.Hooks {
		h, ok := hook.(HookHeaders)
		if !ok {
			continue
		}
		h.OnHeaders(ctx, e, func(name, value string) {
			switch i := find(dst[first:], name); {
			case i < 0:
				dst = append(dst, envelope.Header{Name: name, Value: value})
			case first+i >= own:
				dst[first+i].Value = value
			}
		})
	}
	return dst
}

func find(headers []envelope.Header, name string) int {
	return slices.IndexFunc(headers, func(h envelope.Header) bool { return h.Name == name })
}

// appendJSON appends headers as a JSON object, and nothing where there are
// none. Names and values are UTF-8.
func appendJSON(dst []byte, headers []envelope.Header) []byte {
	if len(headers) == 0 {
		return dst
	}
	for i, h := range headers {
		dst = append(dst, "{,"[min(i, 1)])
		dst = appendJSONString(dst, h.Name)
		dst = append(dst, ':')
		dst = appendJSONString(dst, h.Value)
	}
	return append(dst, '}')
}

// appendJSONString escapes what RFC 8259, section 7, asks for and no more.
func appendJSONString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		if c < ' ' {
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, '\\', c)
		}
		start = i + 1
	}
	return append(append(dst, s[start:]...), '"')
}
