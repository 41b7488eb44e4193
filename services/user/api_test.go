package user_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-048de892/walpost/migrations"
	"github.com/seed-048de892/walpost/services/user"
)

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(testWriter{t}, nil)) }

// offline is a service whose database does not answer.
func offline(t *testing.T) *fixture {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), "postgres://nobody@127.0.0.1:1/none?connect_timeout=2")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	svc, err := user.New(user.Config{DB: pool, Log: testLog(t), Argon2: user.Argon2{MemoryKiB: 64, Time: 1}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(svc.Handler())
	t.Cleanup(server.Close)
	return &fixture{T: t, db: pool, url: server.URL, svc: svc}
}

func TestInputRules(t *testing.T) {
	t.Parallel()
	f := offline(t) // input is refused before the database is asked
	body := func(edit func(map[string]any)) string {
		var m map[string]any
		if err := json.Unmarshal([]byte(signUp("ada")), &m); err != nil {
			t.Fatal(err)
		}
		edit(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	set := func(name string, value any) string { return body(func(m map[string]any) { m[name] = value }) }
	tests := map[string]struct {
		body   string
		status int
		fields string
	}{
		"short name":            {set("username", "ab"), 422, "username"},
		"long name":             {set("username", strings.Repeat("a", 31)), 422, "username"},
		"name with underscore":  {set("username", "a_b"), 422, "username"},
		"name beyond ASCII":     {set("username", "adä"), 422, "username"},
		"no address":            {set("email", "ada"), 422, "email"},
		"address with a name":   {set("email", "Ada <ada@example.org>"), 422, "email"},
		"long address":          {set("email", strings.Repeat("a", 250)+"@example.org"), 422, "email"},
		"short password":        {set("password", "Sec12!a"), 422, "password"},
		"no upper case":         {set("password", "secret12!"), 422, "password"},
		"no lower case":         {set("password", "SECRET12!"), 422, "password"},
		"no digit":              {set("password", "Secretly!"), 422, "password"},
		"no special":            {set("password", "Secret123"), 422, "password"},
		"special not listed":    {set("password", "Secret12-"), 422, "password"},
		"short full name":       {set("fullName", "A"), 422, "fullName"},
		"long full name":        {set("fullName", strings.Repeat("ä", 101)), 422, "fullName"},
		"NUL in the full name":  {set("fullName", "A\x00B"), 422, "fullName"},
		"no such day":           {set("dateOfBirth", "1990-02-30"), 422, "dateOfBirth"},
		"born tomorrow":         {set("dateOfBirth", "9990-01-01"), 422, "dateOfBirth"},
		"unknown member":        {set("role", "admin"), 422, "role"},
		"number for a name":     {set("username", 5), 422, "username"},
		"all at once":           {`{"username":"a","zip":1}`, 422, "email fullName password username zip"},
		"not JSON":              {`{"username":`, 400, ""},
		"two documents":         {signUp("ada") + signUp("ada"), 400, ""},
		"a list":                {`[]`, 422, ""},
		"fine, but no database": {signUp("ada"), 503, ""},
		"null date of birth":    {set("dateOfBirth", nil), 503, ""},
		"hundred characters":    {set("fullName", strings.Repeat("ä", 100)), 503, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := f.do("POST", "/users", tt.body)
			if r.Status != tt.status {
				t.Fatalf("status = %d, want %d: %s", r.Status, tt.status, r.raw)
			}
			if tt.fields != "" && r.fields() != tt.fields {
				t.Errorf("fields = %q, want %q: %s", r.fields(), tt.fields, r.raw)
			}
			if strings.Contains(r.raw, "Sec") || strings.Contains(r.raw, "SECRET") {
				t.Errorf("the answer repeats the password: %s", r.raw)
			}
			if tt.status == 503 && r.Header.Get("Retry-After") == "" {
				t.Errorf("503 without Retry-After: %v", r.Header)
			}
			if r.RequestID == "" || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("no envelope: %s %v", r.raw, r.Header)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	f := offline(t)
	f.want(f.do("POST", "/users", `{"fullName":"`+strings.Repeat("a", 1<<20)+`"}`), http.StatusRequestEntityTooLarge)
	f.want(f.do("GET", "/nowhere", ""), http.StatusNotFound)
	f.want(f.do("PUT", "/users", ""), http.StatusMethodNotAllowed)
	f.want(f.do("POST", "/sessions", credentials("ada", secret)), http.StatusServiceUnavailable)
	if r := f.do("GET", "/health", ""); r.Status != 200 {
		t.Errorf("health = %d", r.Status)
	}
	if r := f.do("GET", "/ready", ""); r.Status != 503 || strings.Contains(r.raw, "127.0.0.1") {
		t.Errorf("ready without a database = %d %s, want 503 without addresses", r.Status, r.raw)
	}
	if r := f.do("GET", "/users", "", "X-Request-ID: a b"); r.Header.Get("X-Request-ID") == "" || strings.Contains(r.Header.Get("X-Request-ID"), " ") {
		t.Errorf("request id %q", r.Header.Get("X-Request-ID"))
	}
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	f := offline(t)
	type operation struct {
		OperationID string `json:"operationId"`
		Responses   map[string]struct {
			Content map[string]struct{ Schema json.RawMessage }
		}
	}
	doc := decode[struct {
		OpenAPI string
		Paths   map[string]map[string]operation
	}](t, []byte(f.do("GET", "/openapi.json", "").raw))
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("openapi = %q", doc.OpenAPI)
	}
	got := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			got[strings.ToUpper(method)+" "+path] = true
			for status, response := range op.Responses {
				if schema := string(response.Content["application/json"].Schema); status >= "400" && !strings.Contains(schema, "Failure") {
					t.Errorf("%s: %s is described as %s", op.OperationID, status, schema)
				}
			}
		}
	}
	for _, want := range []string{
		"POST /users", "GET /users", "GET /users/{id}", "PATCH /users/{id}", "POST /users/{id}/deactivate",
		"POST /sessions", "DELETE /sessions/current", "GET /.well-known/jwks.json",
	} {
		if !got[want] {
			t.Errorf("%s is not described", want)
		}
	}
	response, err := http.Get(f.url + "/docs")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if b, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK || !strings.Contains(string(b), "openapi") {
		t.Errorf("docs: %d %.100s", response.StatusCode, b)
	}
}

// Run serves until its context ends, and refuses a database that is not
// migrated with what to type.
func TestRun(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	if err := f.svc.Ready(t.Context()); err != nil {
		t.Errorf("Ready = %v", err)
	}
	if err := migrations.Down(t.Context(), f.dsn, migrations.User()); err != nil {
		t.Fatal(err)
	}
	f.db.Reset() // its connections hold plans of tables that are gone
	if err := f.svc.Run(soon(t)); err == nil || !strings.Contains(err.Error(), "run: user migrate") {
		t.Errorf("Run = %v, want what to type", err)
	}
	if r := f.do("GET", "/ready", ""); r.Status != 503 {
		t.Errorf("ready = %d %s", r.Status, r.raw)
	}
}

// A client that sends its headers and no body is cut off, and does not hold up
// the others.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: waits for the deadline of a body")
	}
	f := offline(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{")
	if r := f.do("GET", "/health", ""); r.Status != 200 {
		t.Errorf("health beside a slow client = %d", r.Status)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestTimeout {
		t.Errorf("status = %d, want %d", response.StatusCode, http.StatusRequestTimeout)
	}
}
