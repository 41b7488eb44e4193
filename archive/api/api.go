// Package api serves a [archive.Store] over HTTP.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/seed-048de892/walpost/archive"
)

// queryTimeout bounds the work for one answer.
const queryTimeout = 30 * time.Second

// store is what the API asks.
type store interface {
	Events(ctx context.Context, aggregateType, id string, fromVersion int64, limit int, after string) (archive.Page, error)
	State(ctx context.Context, aggregateType, id string, until archive.Until) (archive.State, error)
}

type server struct {
	store store
	log   *slog.Logger
}

// Handler serves
//
//	GET /aggregates/{type}/{id}?version=&at=
//	GET /aggregates/{type}/{id}/events?fromVersion=&limit=&after=
//
// A slash in a type or an id is written %2F. What the store fails at is
// logged to log, and the client is told no more than that.
func Handler(s *archive.Store, log *slog.Logger) http.Handler { return handler(s, log) }

func handler(s store, log *slog.Logger) http.Handler {
	gin.SetMode(gin.ReleaseMode) // else gin writes to standard output
	srv := &server{store: s, log: log}
	e := gin.New()
	e.UseRawPath = true // ids may hold any character
	e.UnescapePathValues = true
	e.HandleMethodNotAllowed = true
	e.Use(requestID, srv.recover)
	e.GET("/aggregates/:type/:id", srv.state)
	e.GET("/aggregates/:type/:id/events", srv.events)
	e.NoRoute(func(c *gin.Context) { fail(c, http.StatusNotFound, "No such path") })
	e.NoMethod(func(c *gin.Context) { fail(c, http.StatusMethodNotAllowed, "Method not allowed") })
	return e
}

func (s *server) state(c *gin.Context) {
	q := query{c: c}
	until := archive.Until{Version: q.count("version"), At: q.time("at")}
	if q.refused() {
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), queryTimeout)
	defer cancel()
	state, err := s.store.State(ctx, c.Param("type"), c.Param("id"), until)
	s.answer(c, &state, err)
}

func (s *server) events(c *gin.Context) {
	q := query{c: c}
	from, limit, after := q.count("fromVersion"), q.limit(), c.Query("after")
	if q.refused() {
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), queryTimeout)
	defer cancel()
	page, err := s.store.Events(ctx, c.Param("type"), c.Param("id"), from, limit, after)
	if errors.Is(err, archive.ErrCursor) {
		fail(c, http.StatusBadRequest, "Validation failed", detail{"after", "give the next of the page before, or leave it out"})
		return
	}
	s.answer(c, &page, err)
}

func (s *server) answer(c *gin.Context, data any, err error) {
	ctx := c.Request.Context()
	switch {
	case err == nil:
		succeed(c, data)
	case errors.Is(err, archive.ErrNotFound):
		fail(c, http.StatusNotFound, "No events archived")
	case ctx.Err() != nil: // the client has gone: nobody reads an answer
		c.Abort()
	default:
		s.log.ErrorContext(ctx, "request failed",
			slog.String("request_id", c.GetString(keyRequestID)), slog.String("path", c.Request.URL.Path), slog.Any("error", err))
		fail(c, http.StatusServiceUnavailable, "The archive cannot answer now")
	}
}

// recover answers for a handler that panicked.
func (s *server) recover(c *gin.Context) {
	gin.CustomRecoveryWithWriter(nil, func(c *gin.Context, cause any) {
		s.log.ErrorContext(c.Request.Context(), "request panicked",
			slog.String("request_id", c.GetString(keyRequestID)), slog.Any("cause", cause))
		fail(c, http.StatusInternalServerError, "Internal error")
	})(c)
}
