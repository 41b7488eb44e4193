package inbox

import "slices"

// A list holds queues, first in, first out. The zero list is empty.
type list struct {
	front, back []*queue // front is read from its end, back is written to
}

func (l *list) len() int { return len(l.front) + len(l.back) }

func (l *list) push(q *queue) { l.back = append(l.back, q) }

// pop takes the one that is in it longest. There must be one.
func (l *list) pop() *queue {
	if len(l.front) == 0 {
		for _, v := range slices.Backward(l.back) {
			l.front = append(l.front, v)
		}
		clear(l.back)
		l.back = l.back[:0]
	}
	n := len(l.front) - 1
	q := l.front[n]
	l.front[n] = nil
	l.front = l.front[:n]
	return q
}
