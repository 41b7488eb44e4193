package user_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/migrations"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/services/user"
)

const secret = "Secret12!"

// A fixture is a service on a database of its own, and a client of it.
type fixture struct {
	*testing.T
	db  *pgxpool.Pool
	dsn string
	url string
	svc *user.Service
}

// start starts a service whose passwords are cheap, changed by edit.
func start(t *testing.T, edit func(*user.Config)) *fixture {
	t.Helper()
	dsn := devstacktest.Database(t)
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if err := migrations.Up(t.Context(), dsn, migrations.User(), log); err != nil {
		t.Fatal(err)
	}
	return serve(t, dsn, log, edit)
}

func serve(t *testing.T, dsn string, log *slog.Logger, edit func(*user.Config)) *fixture {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	cfg := user.Config{DB: pool, Log: log, Argon2: user.Argon2{MemoryKiB: 64, Time: 1}, MaxHashes: 8}
	if edit != nil {
		edit(&cfg)
	}
	svc, err := user.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := svc.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(svc.Handler())
	t.Cleanup(server.Close)
	return &fixture{T: t, db: pool, dsn: dsn, url: server.URL, svc: svc}
}

// testWriter writes logs to the test's own.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(b))
	return len(b), nil
}

// A reply is an answer in its envelope.
type reply struct {
	Status  int             `json:"-"`
	Header  http.Header     `json:"-"`
	Success bool            `json:"success"`
	Data    json.RawMessage `json:"data"`
	Error   string          `json:"error"`
	Details []struct {
		Field, Message string
	} `json:"details"`
	RequestID string `json:"requestId"`
	Meta      struct{ RequestID, Next string }
	raw       string
}

func (r reply) state(t *testing.T) user.State {
	t.Helper()
	var s user.State
	if err := json.Unmarshal(r.Data, &s); err != nil {
		t.Fatalf("decode %s: %v", r.raw, err)
	}
	return s
}

func (r reply) fields() string {
	var fields []string
	for _, d := range r.Details {
		fields = append(fields, d.Field)
	}
	return strings.Join(fields, " ")
}

// do sends body as JSON with headers given as "Name: value".
func (f *fixture) do(method, path, body string, headers ...string) reply {
	request, err := http.NewRequestWithContext(f.Context(), method, f.url+path, strings.NewReader(body))
	if err != nil {
		f.Error(err)
		return reply{}
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		f.Error(err)
		return reply{}
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		f.Error(err)
	}
	r := reply{Status: response.StatusCode, Header: response.Header, raw: string(raw)}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &r); err != nil {
			f.Errorf("%s %s: answer %q: %v", method, path, raw, err)
		}
	}
	return r
}

// want fails the test where r does not have status.
func (f *fixture) want(r reply, status int) reply {
	f.Helper()
	if r.Status != status {
		f.Fatalf("status = %d, want %d: %s", r.Status, status, r.raw)
	}
	if ok := status < 400; r.Success != ok && status != http.StatusNoContent {
		f.Errorf("success = %t at status %d: %s", r.Success, status, r.raw)
	}
	return r
}

func signUp(name string) string {
	return fmt.Sprintf(`{"username":%q,"email":"%s@example.org","password":%q,"fullName":"Some One","dateOfBirth":"1990-12-10"}`, name, name, secret)
}

func credentials(login, password string) string {
	return fmt.Sprintf(`{"login":%q,"password":%q}`, login, password)
}

func (f *fixture) create(name string) user.State {
	f.Helper()
	return f.want(f.do("POST", "/users", signUp(name)), http.StatusCreated).state(f.T)
}

// A record is a row of the outbox.
type record struct {
	Topic, AggregateType, AggregateID, Type string
	AggregateVersion                        int64
	Payload                                 []byte
	Headers                                 map[string]string
}

// records gives the outbox, each aggregate in the order of its versions.
func (f *fixture) records() []record {
	f.Helper()
	rows, err := f.db.Query(f.Context(), `select topic, aggregate_type, aggregate_id, type, aggregate_version, payload, headers
		from outbox order by aggregate_type, aggregate_id, aggregate_version`)
	if err != nil {
		f.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[record])
	if err != nil {
		f.Fatal(err)
	}
	return all
}

// checkFold fails the test unless every user's events have the versions 1..n
// and fold to the user's state, and every user has events.
func (f *fixture) checkFold() {
	f.Helper()
	folded := map[string]any{}
	versions := map[string]int64{}
	for _, r := range f.records() {
		if r.AggregateType != user.AggregateUser {
			continue
		}
		versions[r.AggregateID]++
		if r.AggregateVersion != versions[r.AggregateID] {
			f.Fatalf("user %s: version %d stands where %d should", r.AggregateID, r.AggregateVersion, versions[r.AggregateID])
		}
		var patch any
		if err := json.Unmarshal(r.Payload, &patch); err != nil {
			f.Fatal(err)
		}
		folded[r.AggregateID] = mergePatch(folded[r.AggregateID], patch)
	}
	states, err := user.LoadStates(f.Context(), f.db, outbox.ID{}, 10_000)
	if err != nil {
		f.Fatal(err)
	}
	if len(states) != len(folded) {
		f.Errorf("%d users have rows, %d have events", len(states), len(folded))
	}
	for _, state := range states {
		b, err := json.Marshal(state)
		if err != nil {
			f.Fatal(err)
		}
		got, err := json.Marshal(folded[state.ID.String()])
		if err != nil {
			f.Fatal(err)
		}
		var row any
		if err := json.Unmarshal(b, &row); err != nil {
			f.Fatal(err)
		}
		if want, err := json.Marshal(row); err != nil || !bytes.Equal(got, want) {
			f.Errorf("folded = %s\n   row = %s (%v)", got, want, err)
		}
	}
}

// mergePatch is MergePatch of RFC 7396, section 2.
func mergePatch(target, patch any) any {
	members, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	result, ok := target.(map[string]any)
	if !ok {
		result = map[string]any{}
	}
	for name, value := range members {
		if value == nil {
			delete(result, name)
			continue
		}
		result[name] = mergePatch(result[name], value)
	}
	return result
}

func (f *fixture) count(sql string, args ...any) (n int) {
	f.Helper()
	if err := f.db.QueryRow(f.Context(), sql, args...).Scan(&n); err != nil {
		f.Fatal(err)
	}
	return n
}

func (f *fixture) exec(sql string, args ...any) {
	f.Helper()
	if _, err := f.db.Exec(f.Context(), sql, args...); err != nil {
		f.Fatal(err)
	}
}

// soon is a context for what should take no time at all.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
