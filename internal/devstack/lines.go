package devstack

import (
	"io"
	"sync"
)

// Lines lets several servers that start side by side write their progress to
// one writer, a line at a time.
type Lines struct {
	mu sync.Mutex
	w  io.Writer
}

// NewLines gives a Lines on w.
func NewLines(w io.Writer) *Lines { return &Lines{w: w} }

func (l *Lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
