package bsonjson

import (
	"unicode/utf16"
	"unicode/utf8"
)

// text appends the string whose quote stands at pos, without quotes and
// escapes. A name is refused when it has NUL, which ends names in BSON.
func (c *Converter) text(isName bool) bool {
	c.pos++ // the quote
	src := c.src
	start := c.pos
	ascii := true
	for c.pos < len(src) {
		switch b := src[c.pos]; {
		case b == '"':
			run := src[start:c.pos]
			c.dst = append(c.dst, run...)
			c.pos++
			return ascii || utf8.Valid(run)
		case b == '\\':
			run := src[start:c.pos]
			if !ascii && !utf8.Valid(run) {
				return false
			}
			c.dst = append(c.dst, run...)
			if !c.escape(isName) {
				return false
			}
			start, ascii = c.pos, true
		case b < ' ':
			return false
		default:
			if b >= utf8.RuneSelf {
				ascii = false
			}
			c.pos++
		}
	}
	return false
}

// escape appends what the escape at pos stands for.
func (c *Converter) escape(isName bool) bool {
	if c.pos+1 >= len(c.src) {
		return false
	}
	b := c.src[c.pos+1]
	c.pos += 2
	switch b {
	case '"', '\\', '/':
	case 'b':
		b = '\b'
	case 'f':
		b = '\f'
	case 'n':
		b = '\n'
	case 'r':
		b = '\r'
	case 't':
		b = '\t'
	case 'u':
		return c.unicode(isName)
	default:
		return false
	}
	c.dst = append(c.dst, b)
	return true
}

// unicode appends the character of the four digits at pos, and of the escape
// behind it where the two are a surrogate pair.
func (c *Converter) unicode(isName bool) bool {
	r, ok := c.hex4()
	if !ok || r == 0 && isName {
		return false
	}
	if utf16.IsSurrogate(r) {
		if !c.next('\\') || !c.next('u') {
			return false
		}
		low, ok := c.hex4()
		if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
			return false
		}
	}
	c.dst = utf8.AppendRune(c.dst, r)
	return true
}

func (c *Converter) hex4() (r rune, ok bool) {
	if len(c.src)-c.pos < 4 {
		return 0, false
	}
	for _, b := range c.src[c.pos : c.pos+4] {
		switch {
		case '0' <= b && b <= '9':
			b -= '0'
		case 'a' <= b && b <= 'f':
			b -= 'a' - 10
		case 'A' <= b && b <= 'F':
			b -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(b)
	}
	c.pos += 4
	return r, true
}
