package api

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/seed-048de892/walpost/archive"
)

// A query reads a request's parameters and gathers all that is wrong with them.
type query struct {
	c       *gin.Context
	details []detail
}

// count reads a whole number from 1; a missing one is 0.
func (q *query) count(name string) int64 {
	s := q.c.Query(name)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		q.refuse(name, "must be a whole number from 1")
	}
	return n
}

func (q *query) limit() int {
	n := q.count("limit")
	if n > archive.MaxLimit {
		q.refuse("limit", fmt.Sprintf("must be at most %d", archive.MaxLimit))
		return 0
	}
	return int(n)
}

// time reads a time; a missing one is zero.
func (q *query) time(name string) time.Time {
	s := q.c.Query(name)
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		q.refuse(name, "must be a time like 2026-01-31T12:00:00Z (RFC 3339)")
	}
	return t
}

func (q *query) refuse(field, message string) {
	q.details = append(q.details, detail{field, message})
}

// refused answers when something is wrong.
func (q *query) refused() bool {
	if len(q.details) == 0 {
		return false
	}
	fail(q.c, http.StatusBadRequest, "Validation failed", q.details...)
	return true
}
