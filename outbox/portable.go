package outbox

import (
	"encoding/hex"
	"strconv"
	"strings"
)

// portable makes arguments for any driver: string, int64 and []byte only.
// Arrays are PostgreSQL's array literals, which every driver sends as text.
type portable struct{}

func (portable) row(p *prepared) []any {
	return []any{
		p.id.String(), p.Topic, p.AggregateType, p.AggregateID, p.AggregateVersion, p.Type, p.payload(), p.headersText(),
	}
}

func (portable) rows(list []prepared) []any {
	args := make([]any, 8)
	literal := func(i int, add func(b *strings.Builder, p *prepared)) {
		args[i] = array(len(list), func(b *strings.Builder, j int) { add(b, &list[j]) })
	}
	literal(0, func(b *strings.Builder, p *prepared) { b.WriteString(p.id.String()) })
	literal(1, func(b *strings.Builder, p *prepared) { quote(b, p.Topic) })
	literal(2, func(b *strings.Builder, p *prepared) { quote(b, p.AggregateType) })
	literal(3, func(b *strings.Builder, p *prepared) { quote(b, p.AggregateID) })
	literal(4, func(b *strings.Builder, p *prepared) { b.WriteString(strconv.FormatInt(p.AggregateVersion, 10)) })
	literal(5, func(b *strings.Builder, p *prepared) { quote(b, p.Type) })
	literal(6, func(b *strings.Builder, p *prepared) { quoteBytes(b, p.Payload) })
	literal(7, func(b *strings.Builder, p *prepared) { quote(b, p.headersText()) })
	return args
}

func (portable) id(id *ID) any { return id.String() }

func (portable) ids(ids []ID) any {
	return array(len(ids), func(b *strings.Builder, i int) { b.WriteString(ids[i].String()) })
}

func (portable) bytes(list [][]byte) any {
	return array(len(list), func(b *strings.Builder, i int) { quoteBytes(b, list[i]) })
}

func (portable) message(prefix string, envelope []byte) []any { return []any{prefix, envelope} }

func array(n int, element func(b *strings.Builder, i int)) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		element(&b, i)
	}
	b.WriteByte('}')
	return b.String()
}

// quote writes an element of an array literal in double quotes, in which a
// backslash stands before a quote and a backslash.
func quote(b *strings.Builder, s string) {
	b.WriteByte('"')
	for {
		i := strings.IndexAny(s, `"\`)
		if i < 0 {
			break
		}
		b.WriteString(s[:i])
		b.WriteByte('\\')
		b.WriteByte(s[i])
		s = s[i+1:]
	}
	b.WriteString(s)
	b.WriteByte('"')
}

// quoteBytes writes bytea's hex form, whose backslash is doubled in an array.
func quoteBytes(b *strings.Builder, data []byte) {
	b.WriteString(`"\\x`)
	b.WriteString(hex.EncodeToString(data))
	b.WriteByte('"')
}
