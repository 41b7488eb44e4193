package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-048de892/walpost/archive"
)

// fake remembers what it was asked.
type fake struct {
	asked string
	page  archive.Page
	state archive.State
	err   error
	panic bool
}

func (f *fake) Events(_ context.Context, aggregateType, id string, from int64, limit int, after string) (archive.Page, error) {
	f.asked = fmt.Sprint(aggregateType, " ", id, " ", from, " ", limit, " ", after)
	return f.page, f.err
}

func (f *fake) State(_ context.Context, aggregateType, id string, until archive.Until) (archive.State, error) {
	if f.panic {
		panic("as asked for")
	}
	f.asked = fmt.Sprint(aggregateType, " ", id, " ", until.Version, " ", until.At.UTC().Format(time.RFC3339Nano))
	return f.state, f.err
}

func get(t *testing.T, f *fake, method, path, requestID string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	if requestID != "" {
		r.Header.Set("X-Request-ID", requestID)
	}
	w := httptest.NewRecorder()
	handler(f, slog.New(slog.NewTextHandler(t.Output(), nil))).ServeHTTP(w, r)
	return w
}

func TestAsks(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/aggregates/user/42": "user 42 0 0001-01-01T00:00:00Z",
		"/aggregates/user/42?version=3&at=2026-01-31T13:00:00.5%2B01:00":   "user 42 3 2026-01-31T12:00:00.5Z",
		"/aggregates/user/a%2Fb%20c":                                       "user a/b c 0 0001-01-01T00:00:00Z",
		"/aggregates/user/a+b":                                             "user a+b 0 0001-01-01T00:00:00Z",
		"/aggregates/user/100%25":                                          "user 100% 0 0001-01-01T00:00:00Z",
		"/aggregates/user/42/events":                                       "user 42 0 0 ",
		"/aggregates/user/42/events?fromVersion=3&limit=1000&after=djE6MQ": "user 42 3 1000 djE6MQ",
	} {
		f := new(fake)
		if w := get(t, f, "GET", path, ""); w.Code != http.StatusOK || f.asked != want {
			t.Errorf("%s: status %d, asked %q, want 200 and %q", path, w.Code, f.asked, want)
		}
	}
}

func TestSuccess(t *testing.T) {
	t.Parallel()
	f := &fake{state: archive.State{
		AggregateType: "user", AggregateID: "42", Version: 3, EventCount: 2, LastEventID: "id", LastEventType: "UserUpdated",
		UpdatedAt: time.Date(2026, 1, 31, 12, 0, 0, 1000, time.UTC), State: json.RawMessage(`{"a":"<&>","n":1.10}`),
	}}
	w := get(t, f, "GET", "/aggregates/user/42", "r-1")
	const want = `{"success":true,"data":{"aggregateType":"user","aggregateId":"42","version":3,"eventCount":2,"lastEventId":"id",` +
		`"lastEventType":"UserUpdated","updatedAt":"2026-01-31T12:00:00.000001Z","state":{"a":"<&>","n":1.10}},"meta":{"requestId":"r-1","timestamp":"`
	if !strings.HasPrefix(w.Body.String(), want) {
		t.Errorf("got %s, want %s…", w.Body, want)
	}
	if got := w.Header().Get("X-Request-ID"); got != "r-1" {
		t.Errorf("X-Request-ID = %q, want the one that came in", got)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	const state, events = "/aggregates/user/42", "/aggregates/user/42/events"
	tests := map[string]struct {
		method, path string
		store        fake
		status       int
		fields       []string
	}{
		"two wrong parameters":  {"GET", state + "?version=0&at=today", fake{}, 400, []string{"version", "at"}},
		"negative version":      {"GET", events + "?fromVersion=-1", fake{}, 400, []string{"fromVersion"}},
		"limit too large":       {"GET", events + "?limit=1001", fake{}, 400, []string{"limit"}},
		"limit is no number":    {"GET", events + "?limit=x", fake{}, 400, []string{"limit"}},
		"foreign cursor":        {"GET", events + "?after=x", fake{err: archive.ErrCursor}, 400, []string{"after"}},
		"no such aggregate":     {"GET", state, fake{err: fmt.Errorf("state: %w", archive.ErrNotFound)}, 404, nil},
		"no such path":          {"GET", "/nothing", fake{}, 404, nil},
		"no such method":        {"POST", state, fake{}, 405, nil},
		"MongoDB is down":       {"GET", state, fake{err: errors.New("secret address")}, 503, nil},
		"a fault in the server": {"GET", state, fake{panic: true}, 500, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := get(t, &tt.store, tt.method, tt.path, "r-2")
			var body struct {
				Success   *bool
				Error     string
				Details   []struct{ Field, Message string }
				RequestID string
			}
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatalf("%s: %v", w.Body, err)
			}
			if w.Code != tt.status || body.Success == nil || *body.Success || body.Error == "" || body.RequestID != "r-2" {
				t.Errorf("status %d, body %s; want a failure of status %d for r-2", w.Code, w.Body, tt.status)
			}
			if strings.Contains(w.Body.String(), "secret") {
				t.Errorf("%s tells what is none of the client's business", w.Body)
			}
			if len(body.Details) != len(tt.fields) {
				t.Fatalf("details %v, want fields %v", body.Details, tt.fields)
			}
			for i, field := range tt.fields {
				if body.Details[i].Field != field || body.Details[i].Message == "" {
					t.Errorf("detail %d is %v, want one of %s", i, body.Details[i], field)
				}
			}
		})
	}
}

func TestRequestIDIsMadeWhereItIsMissingOrUnfit(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", "with space", strings.Repeat("x", 129)} {
		w := get(t, new(fake), "GET", "/aggregates/user/42", id)
		if got := w.Header().Get("X-Request-ID"); got == id || len(got) != 36 {
			t.Errorf("for %q the request id is %q, want a new one", id, got)
		}
	}
}
