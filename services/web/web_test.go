package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-048de892/walpost/outbox"
)

type (
	seen     struct{ Body Success[Request] }
	metadata struct{ Body Success[outbox.Metadata] }
)

// echo is an API with operations that show the request and fail in every way.
func echo(t *testing.T, proxies ...string) *API {
	t.Helper()
	a, err := New(Config{
		Name: "echo", Title: "Echo", Version: "1", Log: slog.New(slog.DiscardHandler), TrustedProxies: proxies,
		Problem: func(error) *Problem { return nil },
		Authenticate: func(token string) (string, error) {
			if token == "good" {
				return "user-1", nil
			}
			return "", &Problem{Status: http.StatusUnauthorized, Message: "No valid session"}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	Register(a, huma.Operation{OperationID: "echo", Method: "GET", Path: "/echo"}, func(ctx context.Context, _ *struct{}) (*seen, error) {
		return &seen{Answer(ctx, FromContext(ctx))}, nil
	})
	Register(a, huma.Operation{OperationID: "metadata", Method: "GET", Path: "/metadata"}, func(ctx context.Context, _ *struct{}) (*metadata, error) {
		return &metadata{Answer(ctx, outbox.MetadataFrom(ctx))}, nil
	})
	for name, err := range map[string]error{
		"unknown": errors.New("secret text"), "down": &pgconn.PgError{Code: "57P01"}, "deadlock": &pgconn.PgError{Code: "40P01"},
		"cut": io.ErrUnexpectedEOF, "late": context.DeadlineExceeded, "known": &Problem{Status: 418, Message: "Teapot"},
		"nul": &pgconn.PgError{Code: "22021"}, "bug": &pgconn.PgError{Code: "42601"},
	} {
		Register(a, huma.Operation{OperationID: name, Method: "GET", Path: "/" + name}, func(context.Context, *struct{}) (*seen, error) {
			return nil, err
		})
	}
	Register(a, huma.Operation{OperationID: "panic", Method: "GET", Path: "/panic"}, func(context.Context, *struct{}) (*seen, error) {
		panic("secret text")
	})
	return a
}

func get(t *testing.T, a *API, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", path, http.NoBody)
	r.RemoteAddr = "192.0.2.1:1234"
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w
}

func TestRequestContext(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	tests := map[string]struct {
		headers []string
		check   func(Request) bool
	}{
		"id goes through":          {[]string{"X-Request-ID: r-1"}, func(r Request) bool { return r.ID == "r-1" && r.CorrelationID == "r-1" }},
		"correlation of its own":   {[]string{"X-Request-ID: r-1", "X-Correlation-ID: c"}, func(r Request) bool { return r.CorrelationID == "c" }},
		"id is made":               {nil, func(r Request) bool { return len(r.ID) == 36 }},
		"id with a space":          {[]string{"X-Request-ID: a b"}, func(r Request) bool { return len(r.ID) == 36 }},
		"id too long":              {[]string{"X-Request-ID: " + strings.Repeat("a", 129)}, func(r Request) bool { return len(r.ID) == 36 }},
		"trace":                    {[]string{"traceparent: " + parent, "tracestate: a=1", "tracestate: b=2"}, func(r Request) bool { return r.Traceparent == parent && r.Tracestate == "a=1,b=2" }},
		"trace without ids":        {[]string{"traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01", "tracestate: a=1"}, func(r Request) bool { return r.Traceparent == "" && r.Tracestate == "" }},
		"trace in upper case":      {[]string{"traceparent: " + strings.ToUpper(parent)}, func(r Request) bool { return r.Traceparent == "" }},
		"who is logged in":         {[]string{"Authorization: bearer good"}, func(r Request) bool { return r.UserID == "user-1" }},
		"other scheme":             {[]string{"Authorization: Basic Zm9v"}, func(r Request) bool { return r.UserID == "" }},
		"forged address":           {[]string{"X-Forwarded-For: 198.51.100.7"}, func(r Request) bool { return r.IP == "192.0.2.1" }},
		"agent is cut at a letter": {[]string{"User-Agent: a" + strings.Repeat("ä", 300)}, func(r Request) bool { return len(r.UserAgent) == 511 && strings.HasSuffix(r.UserAgent, "ä") }},
		"agent that is not UTF-8":  {[]string{"User-Agent: a\xffb"}, func(r Request) bool { return r.UserAgent == "ab" }},
	}
	a := echo(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := get(t, a, "/echo", tt.headers...)
			var answer Success[Request]
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Fatal(err)
			}
			if !tt.check(answer.Data) {
				t.Errorf("request = %+v", answer.Data)
			}
			if w.Header().Get("X-Request-ID") != answer.Data.ID || answer.Meta.RequestID != answer.Data.ID {
				t.Errorf("the id did not come back: %s, %v", w.Body, w.Header())
			}
		})
	}
	if w := get(t, echo(t, "192.0.2.0/24"), "/echo", "X-Forwarded-For: 198.51.100.7"); !strings.Contains(w.Body.String(), "198.51.100.7") {
		t.Errorf("a trusted proxy is not believed: %s", w.Body)
	}
}

// Events written for a request carry what it belongs to, and nothing that it
// does not have.
func TestEventsGetTheRequestsMetadata(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	tests := map[string]struct {
		headers []string
		want    outbox.Metadata
	}{
		"nobody logged in": {[]string{"X-Request-ID: r-1"}, outbox.Metadata{RequestID: "r-1", CorrelationID: "r-1"}},
		"everything": {
			[]string{"X-Request-ID: r-1", "X-Correlation-ID: c", "traceparent: " + parent, "tracestate: a=1", "Authorization: Bearer good"},
			outbox.Metadata{UserID: "user-1", RequestID: "r-1", CorrelationID: "c", Traceparent: parent, Tracestate: "a=1"},
		},
	}
	a := echo(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var answer Success[outbox.Metadata]
			if err := json.Unmarshal(get(t, a, "/metadata", tt.headers...).Body.Bytes(), &answer); err != nil {
				t.Fatal(err)
			}
			if answer.Data != tt.want {
				t.Errorf("metadata = %+v, want %+v", answer.Data, tt.want)
			}
		})
	}
}

func TestErrorsBecomeAnswers(t *testing.T) {
	t.Parallel()
	a := echo(t)
	for path, want := range map[string]int{
		"/unknown": 500, "/bug": 500, "/panic": 500, "/down": 503, "/deadlock": 503, "/cut": 503, "/late": 503, "/known": 418, "/nul": 400,
	} {
		w := get(t, a, path)
		var f Failure
		if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil {
			t.Fatalf("%s: %s: %v", path, w.Body, err)
		}
		if w.Code != want || f.Success || f.Error == "" || f.RequestID == "" {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, want)
		}
		if strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s tells the error's text: %s", path, w.Body)
		}
		if (w.Header().Get("Retry-After") != "") != (want == 503) {
			t.Errorf("%s: Retry-After %q at %d", path, w.Header().Get("Retry-After"), w.Code)
		}
	}
	if w := get(t, a, "/echo", "Authorization: Bearer bad"); w.Code != http.StatusUnauthorized {
		t.Errorf("bad token: %d", w.Code)
	}
}

func TestIfMatch(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		header   string
		required bool
		status   int // 0: holds for version 3
	}{
		"matches": {`"3"`, true, 0}, "any": {"*", true, 0}, "missing": {"", true, 428}, "may be missing": {"", false, 0},
		"stale": {`"2"`, true, 412}, "weak": {`W/"3"`, true, 412}, "bare": {"3", true, 400}, "leading zero": {`"03"`, true, 400},
		"several": {`"2", "3"`, true, 400}, "half a tag": {`"3`, true, 400}, "zero": {`"0"`, true, 400},
	}
	for name, tt := range tests {
		p, err := ParseIfMatch(tt.header, tt.required)
		if err == nil {
			err = p.Check(3)
		}
		problem, _ := errors.AsType[*Problem](err)
		if got := err == nil; got != (tt.status == 0) || err != nil && problem.Status != tt.status {
			t.Errorf("%s: %v, want status %d", name, err, tt.status)
		}
	}
}
