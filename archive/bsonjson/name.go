package bsonjson

import (
	"bytes"
	"slices"
	"strconv"
)

// A name says where in the output a member's name stands.
type name struct{ start, end int }

// compareUpTo is how many names are compared each with each; beyond it sorting
// is cheaper.
const compareUpTo = 16

// repeats reports whether two of the names are the same. It may reorder them.
func (c *Converter) repeats(names []name) bool {
	if len(names) <= compareUpTo {
		for i, a := range names {
			for _, b := range names[:i] {
				if a.end-a.start == b.end-b.start && bytes.Equal(c.dst[a.start:a.end], c.dst[b.start:b.end]) {
					return true
				}
			}
		}
		return false
	}
	slices.SortFunc(names, func(a, b name) int {
		return bytes.Compare(c.dst[a.start:a.end], c.dst[b.start:b.end])
	})
	for i := 1; i < len(names); i++ {
		a, b := names[i-1], names[i]
		if bytes.Equal(c.dst[a.start:a.end], c.dst[b.start:b.end]) {
			return true
		}
	}
	return false
}

// appendIndex appends the name that BSON gives the array's element i.
func appendIndex(dst []byte, i int) []byte {
	if i < 10 {
		return append(dst, '0'+byte(i))
	}
	return strconv.AppendInt(dst, int64(i), 10)
}
