// Package web is what the HTTP services do alike: the envelope of answers and
// errors, request ids and trace context, preconditions, idempotency keys,
// limits, health.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-048de892/walpost/internal/daemon"
)

const (
	// MaxBody is the largest request body; a larger one is answered with 413.
	MaxBody = 1 << 20

	// requestTimeout ends the work for a request; 503 is the answer then.
	requestTimeout = 10 * time.Second

	// bodyTimeout cuts off a client that sends its body too slowly. It must
	// be longer than requestTimeout: the deadline stays on the connection, and
	// when it passes net/http cancels a handler that is still at work.
	bodyTimeout = requestTimeout + 5*time.Second
)

// Config configures an [API].
type Config struct {
	// Name prefixes metrics: "user" gives user_http_request_duration_seconds.
	Name string

	// Title and Version stand in the OpenAPI document.
	Title, Version string

	// Log gets every request, failed ones at least at level warn. Required.
	Log *slog.Logger

	// Ready is what /ready tells. Nil means always ready.
	Ready func(context.Context) error

	// Problem turns the service's own errors into answers, nil for those it
	// does not know. Required.
	Problem func(error) *Problem

	// Authenticate gives the user whose bearer token this is. A request with
	// a token that it refuses is answered with 401. Nil ignores tokens.
	Authenticate func(token string) (userID string, err error)

	// TrustedProxies are the addresses or networks whose X-Forwarded-For is
	// believed. Empty means none: the client is who connects.
	TrustedProxies []string

	// Registry gets the metrics. Nil means none.
	Registry prometheus.Registerer
}

// An API is a service's HTTP interface: gin routes, huma describes. Add
// operations by [Register] before it serves.
type API struct {
	huma   huma.API
	engine *gin.Engine
	cfg    Config
	took   *prometheus.HistogramVec
}

// New makes an API without operations but /health, /ready, /openapi.json and
// /docs.
func New(cfg Config) (*API, error) {
	gin.SetMode(gin.ReleaseMode) // else gin prints its routes to standard output
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	if err := engine.SetTrustedProxies(cfg.TrustedProxies); err != nil {
		return nil, fmt.Errorf("trusted-proxies: %w", err)
	}
	a := &API{engine: engine, cfg: cfg, took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    cfg.Name + "_http_request_duration_seconds",
		Help:    "Time to answer a request.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
	}, []string{"method", "route", "status"})}
	if cfg.Registry != nil {
		if err := cfg.Registry.Register(a.took); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	engine.Use(a.begin, gin.CustomRecoveryWithWriter(nil, a.recovered), a.authenticate)
	engine.NoRoute(func(c *gin.Context) { a.refuse(c, &Problem{Status: http.StatusNotFound, Message: "No such path"}) })
	engine.NoMethod(func(c *gin.Context) {
		a.refuse(c, &Problem{Status: http.StatusMethodNotAllowed, Message: "Method not allowed"})
	})

	described := huma.DefaultConfig(cfg.Title, cfg.Version)
	described.CreateHooks = nil // no $schema members in bodies
	described.Transformers = []huma.Transformer{envelope}
	described.RejectUnknownQueryParameters = true
	described.OnAddOperation = []huma.AddOpFunc{describeFailures}
	a.huma = humagin.New(engine, described)

	ops := &daemon.Ops{Ready: a.ready, Log: cfg.Log}
	for _, path := range []string{"/health", "/ready"} {
		engine.GET(path, gin.WrapH(ops.Handler()))
	}
	return a, nil
}

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.engine.ServeHTTP(w, r) }

// OpenAPI gives the description of all operations.
func (a *API) OpenAPI() *huma.OpenAPI { return a.huma.OpenAPI() }

// ready keeps from the public address what the operations address tells: names
// of hosts and accounts.
func (a *API) ready(ctx context.Context) error {
	if a.cfg.Ready == nil {
		return nil
	}
	if err := a.cfg.Ready(ctx); err != nil {
		a.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "not ready", slog.Any("error", err))
		return errors.New("see /ready at the operations address")
	}
	return nil
}

// Register adds an operation. Errors of handle become answers here: those the
// service knows by Config.Problem, an unreachable database 503 with
// Retry-After, all others 500 without their text, which goes to the log.
func Register[I, O any](a *API, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	op.MaxBodyBytes = MaxBody
	op.BodyReadTimeout = bodyTimeout
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err == nil {
			return out, nil
		}
		return nil, a.problem(ctx, op.OperationID, err)
	})
}

func (a *API) problem(ctx context.Context, operation string, err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if p := a.cfg.Problem(err); p != nil {
		return p
	}
	p := &Problem{Status: http.StatusInternalServerError, Message: "Internal error"}
	level := slog.LevelError
	switch {
	case errors.Is(err, context.Canceled): // the client has gone, nobody reads this
		p = &Problem{Status: 499, Message: "Request cancelled"}
		level = slog.LevelDebug
	case unstorable(err):
		p = &Problem{Status: http.StatusBadRequest, Message: "Malformed text", Details: []Detail{{Message: "leave out NUL and what is not UTF-8"}}}
		level = slog.LevelDebug
	case unavailable(err):
		p = Unavailable("Database unavailable, try again")
		level = slog.LevelWarn
	}
	a.cfg.Log.LogAttrs(ctx, level, "request failed", slog.String("operation", operation),
		slog.String("request_id", FromContext(ctx).ID), slog.Any("error", err))
	return p
}

// begin gives the request its context and deadline, and measures and logs it.
func (a *API) begin(c *gin.Context) {
	started := time.Now()
	request := newRequest(c)
	c.Header("X-Request-ID", request.ID)
	ctx, cancel := context.WithTimeout(NewContext(c.Request.Context(), request), requestTimeout)
	defer cancel()
	c.Request = c.Request.WithContext(ctx)
	c.Next()

	took := time.Since(started)
	route := c.FullPath()
	if route == "" {
		route = "none"
	}
	status := c.Writer.Status()
	a.took.WithLabelValues(c.Request.Method, route, strconv.Itoa(status)).Observe(took.Seconds())
	level := slog.LevelDebug
	if status >= 500 {
		level = slog.LevelWarn
	}
	a.cfg.Log.LogAttrs(ctx, level, "request", slog.String("request_id", request.ID), slog.String("method", c.Request.Method),
		slog.String("route", route), slog.Int("status", status), slog.Duration("took", took))
}

func (a *API) recovered(c *gin.Context, cause any) {
	ctx := c.Request.Context()
	a.cfg.Log.LogAttrs(ctx, slog.LevelError, "handler panicked", slog.String("request_id", FromContext(ctx).ID), slog.Any("cause", cause))
	if c.Writer.Written() {
		c.Abort()
		return
	}
	a.refuse(c, &Problem{Status: http.StatusInternalServerError, Message: "Internal error"})
}

// authenticate finds out who asks. No token is fine here, since most
// operations are public; a token that does not hold is not.
func (a *API) authenticate(c *gin.Context) {
	token, ok := Bearer(c.GetHeader("Authorization"))
	if !ok || a.cfg.Authenticate == nil {
		return
	}
	userID, err := a.cfg.Authenticate(token)
	if err != nil {
		a.refuse(c, a.problem(c.Request.Context(), "authenticate", err))
		return
	}
	request := FromContext(c.Request.Context())
	request.UserID = userID
	c.Request = c.Request.WithContext(NewContext(c.Request.Context(), request))
}

// Bearer takes the token out of an Authorization header.
func Bearer(header string) (token string, ok bool) {
	scheme, token, _ := strings.Cut(header, " ")
	return strings.TrimSpace(token), strings.EqualFold(scheme, "Bearer")
}

func (a *API) refuse(c *gin.Context, p *Problem) {
	for name, values := range p.Header {
		for _, value := range values {
			c.Writer.Header().Add(name, value)
		}
	}
	c.AbortWithStatusJSON(p.Status, p.failure(c.Request.Context()))
}
