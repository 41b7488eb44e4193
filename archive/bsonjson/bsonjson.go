// Package bsonjson turns JSON into BSON in one pass, into the caller's buffer,
// and only where BSON holds exactly what the JSON says.
//
// What it makes of each value:
//
//	null, true, false   null, boolean
//	string              string, escapes resolved
//	array, object       array, document, members in their order
//	integer             int32 where it fits, else int64
//	other number        double, where its shortest decimal form is the number
//	                    as written (0.1, 1e3, -0); else decimal128
//
// What BSON, or MongoDB, cannot hold exactly is refused as a whole:
//
//	a number of more than 34 significant digits or beyond decimal128's range
//	an object that has one name twice
//	a name with NUL
//	a string that is not UTF-8, or has an escaped surrogate without its other half
//	arrays and objects nested more than [MaxDepth] deep
package bsonjson

import "encoding/binary"

// MaxDepth is how deep arrays and objects may stand in one another. MongoDB
// takes a hundred levels, counting the documents around the value.
const MaxDepth = 90

// Types of BSON elements.
const (
	typeDouble     = 0x01
	typeString     = 0x02
	typeDocument   = 0x03
	typeArray      = 0x04
	typeBoolean    = 0x08
	typeNull       = 0x0A
	typeInt32      = 0x10
	typeInt64      = 0x12
	typeDecimal128 = 0x13
)

// A Converter converts one value after another. It keeps scratch memory, so
// that converting allocates nothing once it has seen objects of the size; the
// zero Converter is ready to use. It is not safe for concurrent use.
type Converter struct {
	src   []byte
	dst   []byte
	pos   int    // in src
	names []name // of the objects being converted, innermost last
}

// AppendElement appends an element of that name with the value of the JSON
// text src to dst, in the manner of strconv.AppendInt. It reports false, and
// gives dst as it was, where src is not one JSON value (RFC 8259) or BSON
// cannot hold it exactly. The name must not have NUL. src is not kept.
func (c *Converter) AppendElement(dst []byte, elementName string, src []byte) ([]byte, bool) {
	c.src, c.dst, c.pos, c.names = src, dst, 0, c.names[:0]
	at := len(c.dst)
	c.dst = append(c.dst, 0)
	c.dst = append(c.dst, elementName...)
	c.dst = append(c.dst, 0)
	c.space()
	ok := c.value(at, 0)
	c.space()
	ok = ok && c.pos == len(src)
	out := c.dst
	c.src, c.dst = nil, nil
	if !ok {
		return out[:len(dst)], false
	}
	return out, true
}

// value converts the value that begins at pos and puts its type at typeAt.
func (c *Converter) value(typeAt, depth int) bool {
	if c.pos == len(c.src) {
		return false
	}
	switch b := c.src[c.pos]; b {
	case '{':
		c.dst[typeAt] = typeDocument
		return depth < MaxDepth && c.object(depth+1)
	case '[':
		c.dst[typeAt] = typeArray
		return depth < MaxDepth && c.array(depth+1)
	case '"':
		c.dst[typeAt] = typeString
		start := len(c.dst)
		c.dst = append(c.dst, 0, 0, 0, 0)
		if !c.text(false) {
			return false
		}
		c.dst = append(c.dst, 0)
		return c.setLength(start, len(c.dst)-start-4)
	case 't':
		c.dst[typeAt] = typeBoolean
		c.dst = append(c.dst, 1)
		return c.literal("true")
	case 'f':
		c.dst[typeAt] = typeBoolean
		c.dst = append(c.dst, 0)
		return c.literal("false")
	case 'n':
		c.dst[typeAt] = typeNull
		return c.literal("null")
	default:
		return c.number(typeAt)
	}
}

func (c *Converter) literal(want string) bool {
	if len(c.src)-c.pos < len(want) || string(c.src[c.pos:c.pos+len(want)]) != want {
		return false
	}
	c.pos += len(want)
	return true
}

func (c *Converter) array(depth int) bool {
	start := len(c.dst)
	c.dst = append(c.dst, 0, 0, 0, 0)
	c.pos++ // the bracket
	c.space()
	if c.next(']') {
		return c.end(start)
	}
	for i := 0; ; i++ {
		typeAt := len(c.dst)
		c.dst = append(c.dst, 0)
		c.dst = appendIndex(c.dst, i)
		c.dst = append(c.dst, 0)
		if !c.value(typeAt, depth) {
			return false
		}
		c.space()
		if c.next(']') {
			return c.end(start)
		}
		if !c.next(',') {
			return false
		}
		c.space()
	}
}

func (c *Converter) object(depth int) bool {
	start := len(c.dst)
	c.dst = append(c.dst, 0, 0, 0, 0)
	c.pos++ // the brace
	c.space()
	if c.next('}') {
		return c.end(start)
	}
	first := len(c.names)
	for {
		typeAt := len(c.dst)
		c.dst = append(c.dst, 0)
		if c.pos == len(c.src) || c.src[c.pos] != '"' || !c.text(true) {
			return false
		}
		c.names = append(c.names, name{typeAt + 1, len(c.dst)})
		c.dst = append(c.dst, 0)
		c.space()
		if !c.next(':') {
			return false
		}
		c.space()
		if !c.value(typeAt, depth) {
			return false
		}
		c.space()
		if c.next('}') {
			unique := !c.repeats(c.names[first:])
			c.names = c.names[:first]
			return unique && c.end(start)
		}
		if !c.next(',') {
			return false
		}
		c.space()
	}
}

// end closes the document or array that began at start.
func (c *Converter) end(start int) bool {
	c.dst = append(c.dst, 0)
	return c.setLength(start, len(c.dst)-start)
}

func (c *Converter) setLength(at, n int) bool {
	if n > 1<<31-1 {
		return false
	}
	binary.LittleEndian.PutUint32(c.dst[at:], uint32(n))
	return true
}

// next takes b if it comes next.
func (c *Converter) next(b byte) bool {
	if c.pos < len(c.src) && c.src[c.pos] == b {
		c.pos++
		return true
	}
	return false
}

func (c *Converter) space() {
	for c.pos < len(c.src) {
		switch c.src[c.pos] {
		case ' ', '\t', '\r', '\n':
			c.pos++
		default:
			return
		}
	}
}
