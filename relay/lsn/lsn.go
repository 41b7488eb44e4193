// Package lsn holds positions in a PostgreSQL write-ahead log.
package lsn

import (
	"fmt"
	"strconv"
	"strings"
)

// Pos is a log sequence number: a byte position in the write-ahead log of one
// server. Two compare only within one system identifier and timeline. The zero
// Pos is no position.
type Pos uint64

// Parse reads what [Pos.String] writes and what PostgreSQL prints, and nothing
// that only begins with it.
func Parse(s string) (Pos, error) {
	hi, lo, ok := strings.Cut(s, "/")
	h, err1 := parseHalf(hi)
	l, err2 := parseHalf(lo)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("parse lsn %q: want two hex numbers of at most 8 digits with a slash between, like 16/B374D848", s)
	}
	return Pos(h<<32 | l), nil
}

func parseHalf(s string) (uint64, error) {
	if len(s) > 8 {
		return 0, strconv.ErrRange
	}
	return strconv.ParseUint(s, 16, 32)
}

// String gives p as PostgreSQL prints it: 16/B374D848.
func (p Pos) String() string { return string(p.Append(nil)) }

// Append appends what String gives to dst.
func (p Pos) Append(dst []byte) []byte {
	dst = appendHex(dst, uint32(p>>32))
	return appendHex(append(dst, '/'), uint32(p))
}

func appendHex(dst []byte, n uint32) []byte {
	const digits = "0123456789ABCDEF"
	shift := 28
	for shift > 0 && n>>shift == 0 {
		shift -= 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, digits[n>>shift&0xf])
	}
	return dst
}

// MarshalText makes a Pos a JSON string.
func (p Pos) MarshalText() ([]byte, error) { return p.Append(nil), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Pos) UnmarshalText(b []byte) (err error) {
	*p, err = Parse(string(b))
	return err
}
