package security

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/daemon/kafkaflags"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/schema"
	"github.com/seed-048de892/walpost/relay"
)

// database makes a database of the test's own and gives a connection of the
// superuser's.
func (w *world) database(t *testing.T, name string) *pgx.Conn {
	t.Helper()
	dsn, err := w.postgres.CreateDatabase(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return connect(t, dsn)
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// dsn is that of a role over TLS, as conn's database is reached, with more
// parameters as pairs of name and value.
func (w *world) dsn(t *testing.T, conn *pgx.Conn, user string, parameters ...string) string {
	t.Helper()
	query := url.Values{"sslmode": {"verify-full"}, "sslrootcert": {w.ca.File}}
	for pair := range slices.Chunk(parameters, 2) {
		query.Set(pair[0], pair[1])
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(user, passwords[user]),
		Host: fmt.Sprintf("127.0.0.1:%d", conn.Config().Port), Path: conn.Config().Database, RawQuery: query.Encode(),
	}
	return u.String()
}

func execute(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// migrate applies the migrations of the library.
func migrate(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	for _, name := range []string{"00001_outbox.sql", "00002_outbox_emit.sql", "00003_inbox.sql"} {
		migration, err := schema.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		up, _, _ := strings.Cut(string(migration), "-- +goose Down")
		execute(t, conn, up)
	}
}

// A journal keeps what a component logs, for a look at it afterwards.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
	out io.Writer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf.Write(b)
	return j.out.Write(b)
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// holdsNoSecret fails the test where a password is in what was logged or in
// an error.
func (j *journal) holdsNoSecret(t *testing.T, errs ...error) {
	t.Helper()
	text := fmt.Sprint(j.text(), errs)
	for user, password := range passwords {
		if strings.Contains(text, password) {
			t.Errorf("the password of %s is in: %s", user, text)
		}
	}
}

// run runs a relay until it streams, and gives what stops it.
func run(t *testing.T, config relay.Config, f *kafkaflags.Flags) (stop func()) {
	t.Helper()
	options, err := f.Options()
	if err != nil {
		t.Fatal(err)
	}
	j := &journal{out: t.Output()}
	config.Brokers, config.Kafka, config.Log = f.Brokers, options, j.logger()
	r, err := relay.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	devstacktest.Wait(t, "the relay to stream", 30*time.Second, func() bool { return r.Ready(ctx) == nil || len(done) > 0 })
	if len(done) > 0 {
		cancel()
		t.Fatalf("Run = %v, want it to stream", <-done)
	}
	return func() {
		t.Helper()
		cancel()
		err := <-done
		if err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		for _, failed := range []string{"last confirm failed", "closing the stream failed", "could not store the last position", "session ended"} {
			if strings.Contains(j.text(), failed) {
				t.Errorf("%s: %s", failed, j.text())
			}
		}
		j.holdsNoSecret(t, err)
	}
}

func write(t *testing.T, conn *pgx.Conn, topic, id string) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		return outbox.Write(t.Context(), tx, outbox.Event{
			Topic: topic, AggregateType: "user", AggregateID: id, AggregateVersion: 1, Type: "UserCreated", Payload: []byte(`{"id":"` + id + `"}`),
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// read gives the first n events of a topic, by their sequence, as the client
// with the flags reads them.
func read(t *testing.T, f *kafkaflags.Flags, topic string, n int) []cloudevent.Event {
	t.Helper()
	options, err := f.Options()
	if err != nil {
		t.Fatal(err)
	}
	c, err := kgo.NewClient(append(options, kgo.SeedBrokers(f.Brokers...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var events []cloudevent.Event
	for len(events) < n {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %d events of %s, want %d: %v", len(events), topic, n, err)
		}
		for _, r := range fetches.Records() {
			e, err := cloudevent.Decode(r)
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, e)
		}
	}
	slices.SortFunc(events, func(a, b cloudevent.Event) int { return int(a.Sequence - b.Sequence) })
	return events
}

// One relay after the other, each with another way to log in to Kafka and to
// PostgreSQL, publishes an event.
func TestTheRelayPublishesByEveryLogin(t *testing.T) {
	w := theWorld(t)
	conn := w.database(t, "every_login")
	migrate(t, conn)
	for _, user := range []string{"tls", "certified"} {
		passwords := passwords[tester]
		execute(t, conn, fmt.Sprintf(`create role %s login replication password '%s'; grant select on outbox to %[1]s`, user, passwords))
	}
	execute(t, conn, `create publication outbox for table outbox with (publish = 'insert', publish_via_partition_root = true)`)
	with := func(user string, parameters ...string) string {
		u, err := url.Parse(w.dsn(t, conn, user, parameters...))
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(user, passwords[tester])
		return u.String()
	}
	certificate := []string{"sslcert", w.client.CertFile, "sslkey", w.client.KeyFile}
	postgres := []string{
		with("tls", "sslmode", "allow"), // without TLS first, which pg_hba.conf refuses
		with("tls", "sslmode", "prefer"),
		with("tls", "sslmode", "require", "sslrootcert", ""),
		with("tls", "sslmode", "verify-ca"),
		with("tls", "channel_binding", "require", "require_auth", "scram-sha-256"),
		with("certified", certificate...),
		with("certified", append(certificate, "channel_binding", "require")...),
		with("certified", append(certificate, "sslmode", "require")...),
	}
	const topic = "every-login"
	logins := w.logins(t, tester)
	for i := range max(len(logins), len(postgres)) {
		l := logins[i%len(logins)]
		u, err := url.Parse(postgres[i%len(postgres)])
		if err != nil {
			t.Fatal(err)
		}
		t.Run(l.name+" and "+u.User.Username()+" "+u.Query().Get("sslmode"), func(t *testing.T) {
			stop := run(t, relay.Config{Postgres: u.String(), Source: "every-login"}, &l.flags)
			write(t, conn, topic, fmt.Sprint(i))
			events := read(t, &l.flags, topic, i+1)
			stop()
			for n, e := range events {
				if e.Subject != fmt.Sprint(n) || e.Sequence != int64(n+1) {
					t.Errorf("event %d is of %s with sequence %d", n, e.Subject, e.Sequence)
				}
			}
		})
	}
}
