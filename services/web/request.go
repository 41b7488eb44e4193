package web

import (
	"context"
	"regexp"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/seed-048de892/walpost/outbox"
)

// A Request is what is known of the request at work: where it came from and
// what it belongs to.
type Request struct {
	ID            string // X-Request-ID, or made here
	CorrelationID string // X-Correlation-ID, or the request's id
	UserID        string // who asks, empty where nobody logged in
	Traceparent   string // W3C Trace Context, empty where none came
	Tracestate    string
	IP            string
	UserAgent     string
}

type requestKey struct{}

// NewContext gives a context that carries r, also as the [outbox.Metadata] of
// every event that is written with it.
func NewContext(ctx context.Context, r Request) context.Context {
	ctx = outbox.WithMetadata(ctx, outbox.Metadata{
		UserID: r.UserID, RequestID: r.ID, CorrelationID: r.CorrelationID, Traceparent: r.Traceparent, Tracestate: r.Tracestate,
	})
	return context.WithValue(ctx, requestKey{}, r)
}

// FromContext gives the request that ctx carries, or the zero Request.
func FromContext(ctx context.Context) Request {
	r, _ := ctx.Value(requestKey{}).(Request)
	return r
}

// maxUserAgent bounds what a client can make us keep in a row and an event.
const maxUserAgent = 512

func newRequest(c *gin.Context) Request {
	r := Request{ID: c.GetHeader("X-Request-ID"), CorrelationID: c.GetHeader("X-Correlation-ID"), IP: c.ClientIP()}
	if !validID(r.ID) {
		r.ID = outbox.NewID().String()
	}
	if !validID(r.CorrelationID) {
		r.CorrelationID = r.ID
	}
	if traceparent := c.GetHeader("traceparent"); validTraceparent(traceparent) {
		r.Traceparent = traceparent
		if state := strings.Join(c.Request.Header.Values("tracestate"), ","); printable(state) && len(state) <= 512 {
			r.Tracestate = state
		}
	}
	agent := strings.ToValidUTF8(c.Request.UserAgent(), "")
	for len(agent) > maxUserAgent {
		agent = strings.ToValidUTF8(agent[:maxUserAgent], "")
	}
	r.UserAgent = agent
	return r
}

// validID bounds an id from outside: it goes to logs, rows and headers.
func validID(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-:", r)
	})
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// validTraceparent accepts version 00 of W3C Trace Context with non-zero ids.
func validTraceparent(s string) bool {
	ok, err := regexp.MatchString(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`, s)
	return err == nil && ok && strings.Trim(s[3:35], "0") != "" && strings.Trim(s[36:52], "0") != ""
}
