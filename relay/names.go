package relay

import (
	"strings"
	"unsafe"
)

// maxNames bounds what a names remembers: beyond it the writers use names as
// data, and remembering them would only hold memory.
const maxNames = 4096

// A names gives one string for equal bytes, so that the names that every row
// repeats are allocated once. The zero names is ready to use.
type names map[string]string

// get gives a string of its own that equals s, which may change afterwards.
func (n *names) get(s string) string {
	if known, ok := (*n)[s]; ok {
		return known
	}
	if *n == nil || len(*n) >= maxNames {
		*n = make(names)
	}
	s = strings.Clone(s)
	(*n)[s] = s
	return s
}

// view gives b as a string without copying it. It is for text that is copied
// on before b changes: see [router.route].
func view(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b))
}
