package bsonjson

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
)

// A number is a JSON number read: its value is digits × 10^exp.
type number struct {
	text     []byte
	negative bool
	integer  bool // written without fraction and exponent
	exp      int

	// digits are the significant ones, without zeros at either end, and hi
	// and lo their value. There are at most 34; more are refused.
	digits [34]byte
	n      int
	hi, lo uint64
}

// number appends the number at pos.
func (c *Converter) number(typeAt int) bool {
	var n number
	if !c.scanNumber(&n) {
		return false
	}
	if n.integer && n.hi == 0 && (!n.negative || n.n != 0) {
		if v, ok := n.int64(); ok {
			if int64(int32(v)) == v {
				c.dst[typeAt] = typeInt32
				c.dst = binary.LittleEndian.AppendUint32(c.dst, uint32(v))
			} else {
				c.dst[typeAt] = typeInt64
				c.dst = binary.LittleEndian.AppendUint64(c.dst, uint64(v))
			}
			return true
		}
	}
	if f, ok := n.double(); ok {
		c.dst[typeAt] = typeDouble
		c.dst = binary.LittleEndian.AppendUint64(c.dst, math.Float64bits(f))
		return true
	}
	hi, lo, ok := n.decimal128()
	c.dst[typeAt] = typeDecimal128
	c.dst = binary.LittleEndian.AppendUint64(c.dst, lo)
	c.dst = binary.LittleEndian.AppendUint64(c.dst, hi)
	return ok
}

// scanNumber reads a number by RFC 8259, section 6.
func (c *Converter) scanNumber(n *number) bool {
	start := c.pos
	n.negative = c.next('-')
	n.integer = true
	zeros := 0 // that may turn out to stand at the end
	add := func(d byte) bool {
		switch {
		case d == '0' && n.n == 0:
		case d == '0':
			zeros++
		default:
			if n.n+zeros+1 > len(n.digits) {
				return false
			}
			for ; zeros > 0; zeros-- {
				n.push('0')
			}
			n.push(d)
		}
		return true
	}
	whole := c.pos
	for ; c.isDigit(); c.pos++ {
		if !add(c.src[c.pos]) {
			return false
		}
	}
	if c.pos == whole || c.src[whole] == '0' && c.pos-whole > 1 {
		return false
	}
	if c.next('.') {
		n.integer = false
		fraction := c.pos
		for ; c.isDigit(); c.pos++ {
			if !add(c.src[c.pos]) {
				return false
			}
		}
		if c.pos == fraction {
			return false
		}
		n.exp -= c.pos - fraction
	}
	n.exp += zeros
	if c.next('e') || c.next('E') {
		n.integer = false
		if !c.exponent(n) {
			return false
		}
	}
	if n.n == 0 {
		n.exp = 0
	}
	n.text = c.src[start:c.pos]
	return true
}

func (c *Converter) exponent(n *number) bool {
	negative := c.next('-')
	if !negative {
		c.next('+')
	}
	start, e := c.pos, 0
	for ; c.isDigit(); c.pos++ {
		// Larger ones are out of every range, but must not overflow.
		e = min(e*10+int(c.src[c.pos]-'0'), 1<<30)
	}
	if negative {
		e = -e
	}
	n.exp += e
	return c.pos > start
}

func (c *Converter) isDigit() bool {
	return c.pos < len(c.src) && '0' <= c.src[c.pos] && c.src[c.pos] <= '9'
}

func (n *number) push(d byte) {
	n.digits[n.n] = d
	n.n++
	over, lo := bits.Mul64(n.lo, 10)
	var carry uint64
	n.lo, carry = bits.Add64(lo, uint64(d-'0'), 0)
	n.hi = n.hi*10 + over + carry
}

func (n *number) int64() (int64, bool) {
	v := n.lo
	for range n.exp {
		over, lo := bits.Mul64(v, 10)
		if over != 0 {
			return 0, false
		}
		v = lo
	}
	switch {
	case n.negative && v <= 1<<63:
		return -int64(v), true
	case !n.negative && v < 1<<63:
		return int64(v), true
	}
	return 0, false
}

// double gives the nearest double, if its shortest decimal form is n.
func (n *number) double() (float64, bool) {
	// ParseFloat keeps nothing of the string, so that it stays on the stack.
	f, err := strconv.ParseFloat(string(n.text), 64)
	if err != nil {
		return 0, false
	}
	// Fifteen digits always survive, away from the ends of the range.
	if n.n == 0 || n.n <= 15 && -290 < n.exp && n.exp < 290 {
		return f, true
	}
	var buf [32]byte
	shortest := number{}
	c := Converter{src: strconv.AppendFloat(buf[:0], f, 'e', -1, 64)}
	if !c.scanNumber(&shortest) {
		return 0, false
	}
	return f, shortest.exp == n.exp && shortest.hi == n.hi && shortest.lo == n.lo
}

// Bounds of decimal128's exponent, which is stored with a bias.
const (
	minExponent  = -6176
	maxExponent  = 6111
	exponentBias = 6176
)

func (n *number) decimal128() (hi, lo uint64, ok bool) {
	hi, lo = n.hi, n.lo
	// A large exponent may be written as zeros at the end of the digits.
	for digits := n.n; n.exp > maxExponent; n.exp-- {
		if digits++; digits > len(n.digits) {
			return 0, 0, false
		}
		over, low := bits.Mul64(lo, 10)
		hi, lo = hi*10+over, low
	}
	if n.exp < minExponent {
		return 0, 0, false
	}
	hi |= uint64(n.exp+exponentBias) << 49
	if n.negative {
		hi |= 1 << 63
	}
	return hi, lo, true
}
