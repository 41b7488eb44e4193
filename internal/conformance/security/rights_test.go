package security

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/internal/daemon/kafkaflags"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/inbox"
	"github.com/seed-048de892/walpost/outbox/retention"
	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/position"
)

// A system is a database and topics with the rights that the manual grants,
// and no others.
type system struct {
	*world
	super *pgx.Conn
}

// asTheManualSays follows it from an empty database on.
func asTheManualSays(t *testing.T, w *world) *system {
	t.Helper()
	s := &system{world: w, super: w.database(t, "userdb")}
	sql, err := manual("Roles of PostgreSQL", "sql")
	if err != nil || len(sql) != 2 {
		t.Fatalf("%d blocks of SQL, %v, want 2", len(sql), err)
	}
	execute(t, s.super, sql[0])
	for _, user := range []string{appUser, relayUser, keeperUser} {
		execute(t, s.super, fmt.Sprintf("alter role %s password '%s'", user, passwords[user])) // \password
	}
	u, err := url.Parse(w.postgres.DSN)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "userdb"
	migrations := connect(t, u.String()+"&options=-c%20role%3Dapp_owner") // what PGOPTIONS does
	migrate(t, migrations)
	execute(t, migrations, "create table users (id text primary key); create table seen (id text primary key); grant insert on seen to app")
	execute(t, s.super, sql[1])

	admin, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	grant(t, kadm.NewClient(admin))
	return s
}

// as is how user logs in to Kafka.
func (s *system) as(user string) *kafkaflags.Flags {
	return &kafkaflags.Flags{
		Brokers: s.kafka.Secure.SASL, TLS: true, CAFile: s.ca.File, SASL: kafkaflags.ScramSHA512, User: user, Password: secretOf(user),
	}
}

func (s *system) options(t *testing.T, user string) []kgo.Opt {
	t.Helper()
	o, err := s.as(user).Options()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (s *system) pool(t *testing.T, user string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), s.dsn(t, s.super, user))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

type user struct {
	ID string `json:"id"`
}

// An event goes the whole way, every connection by TLS, with the rights that
// the manual grants and no others: written by app, published by the relay with
// a client certificate, channel binding and SCRAM, handled by app, archived.
func TestTheManualsRightsSuffice(t *testing.T) {
	w := theWorld(t)
	s := asTheManualSays(t, w)
	stop := run(t, relay.Config{
		Postgres: w.dsn(t, s.super, relayUser, "sslcert", w.relay.CertFile, "sslkey", w.relay.KeyFile, "channel_binding", "require"),
	}, s.as(relayUser))
	app := connect(t, w.dsn(t, s.super, appUser))
	const topic = "user.created"
	write(t, app, topic, "row")
	if err := pgx.BeginFunc(t.Context(), app, func(tx pgx.Tx) error {
		e := outbox.Event{Topic: topic, AggregateType: "user", AggregateID: "message", AggregateVersion: 1, Type: "UserCreated", Payload: []byte(`{"id":"message"}`)}
		return outbox.Writer{Mode: outbox.WAL}.Write(t.Context(), tx, e)
	}); err != nil {
		t.Error(err)
	}
	execute(t, app, `select outbox_emit('user.created', 'user', 'bad', 1, 'UserCreated', '{"id":"bad"}')`)
	var subjects []string
	for _, e := range read(t, s.as(appUser), topic, 3) {
		subjects = append(subjects, e.Subject)
	}
	if fmt.Sprint(subjects) != "[row message bad]" {
		t.Errorf("events of %v", subjects)
	}
	s.topicMadeBeforehand(t, app)
	t.Run("inbox", s.inbox)
	t.Run("keeper", s.keeper)
	t.Run("archive", s.archive)
	stop()
	// A second start has a slot already, and needs no right to the table.
	execute(t, s.super, "revoke select on outbox from relay")
	stop = run(t, relay.Config{
		Postgres: w.dsn(t, s.super, relayUser, "sslcert", w.relay.CertFile, "sslkey", w.relay.KeyFile), Delivery: relay.ExactlyOnce,
	}, s.as(relayUser))
	write(t, app, topic, "transactional")
	read(t, s.as(appUser), topic, 4)
	stop()
	t.Run("refused", s.refused)
}

// topicMadeBeforehand needs no Create.
func (s *system) topicMadeBeforehand(t *testing.T, app *pgx.Conn) {
	t.Helper()
	const topic = "made.beforehand"
	client, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	_, err1 := admin.CreateTopic(t.Context(), 1, 1, nil, topic)
	_, err2 := admin.CreateACLs(t.Context(), kadm.NewACLs().Allow("User:"+relayUser).AllowHosts("*").Topics(topic).
		ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpWrite, kadm.OpDescribe, kadm.OpDescribeConfigs))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	write(t, app, topic, "row")
	read(t, s.as(tester), topic, 1)

	restricted, err := kgo.NewClient(append(s.options(t, relayUser), kgo.SeedBrokers(s.kafka.Secure.SASL...))...)
	if err != nil {
		t.Fatal(err)
	}
	defer restricted.Close()
	if err := (&position.Store{Client: restricted, Topic: topic, Replication: 1}).Prepare(t.Context()); err != nil {
		t.Errorf("positions topic made beforehand, without the right to create: %v", err)
	}
	if err := (&position.Store{Client: restricted, Topic: "made.never", Replication: 1}).Prepare(t.Context()); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("positions topic that is missing, without the right to create: %v, want %v", err, kerr.TopicAuthorizationFailed)
	}
}

// inbox handles two events, keeps a third as a dead letter, and handles it
// when it is redriven.
func (s *system) inbox(t *testing.T) {
	pool := s.pool(t, appUser)
	in, err := inbox.New(inbox.Config{
		Brokers: s.kafka.Secure.SASL, Group: "registration", KafkaOptions: s.options(t, appUser), Pool: pool, Window: -1,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	refuse := true
	created := outbox.Typed[user]{Name: "UserCreated", Topic: "user.created", AggregateType: "user"}
	err = inbox.Handle(in, created, func(ctx context.Context, tx pgx.Tx, e inbox.Received[user]) error {
		mu.Lock()
		defer mu.Unlock()
		if e.Value.ID == "bad" && refuse {
			return inbox.Permanent(errors.New("refused by the test"))
		}
		_, err := tx.Exec(ctx, "insert into seen (id) values ($1)", e.Value.ID)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	count := func(sql string) (n int) {
		if err := s.super.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	ended := func() bool { return len(done) > 0 }
	devstacktest.Wait(t, "two effects and a dead letter", 30*time.Second, func() bool {
		return ended() || count("select count(*) from seen") == 2 && count("select count(*) from inbox_dead") == 1
	})
	mu.Lock()
	refuse = false
	mu.Unlock()
	letters := inbox.DeadLetters{DB: pool}
	if _, err := letters.Redrive(t.Context(), inbox.Redrive{Filter: inbox.Filter{Group: "registration"}}); err != nil {
		t.Error(err)
	}
	devstacktest.Wait(t, "the redriven event", 30*time.Second, func() bool {
		return ended() || count("select count(*) from seen") == 3 && count("select count(*) from inbox_dead") == 0
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// keeper keeps both tables' partitions, which belong to the owner then.
func (s *system) keeper(t *testing.T) {
	pool := s.pool(t, keeperUser)
	window, err := inbox.NewWindow(inbox.WindowConfig{Pool: pool, Brokers: s.kafka.Secure.SASL, KafkaOptions: s.options(t, keeperUser)})
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := window.Keep(t.Context()); err != nil || len(kept.Made) == 0 || len(kept.Held) > 0 {
		t.Errorf("inbox: %+v, %v, want partitions", kept, err)
	}
	keep, err := retention.New(retention.Config{DB: pool, Own: "outbox_userdb"})
	if err != nil {
		t.Fatal(err)
	}
	if pass, err := keep.Step(t.Context()); err != nil || len(pass.Made) == 0 {
		t.Errorf("outbox: %+v, %v, want partitions", pass, err)
	}
	var others int
	err = s.super.QueryRow(t.Context(), "select count(*) from pg_class where relnamespace = 'public'::regnamespace and relowner <> 'app_owner'::regrole").Scan(&others)
	if err != nil || others != 0 {
		t.Errorf("%d tables, sequences and indexes belong to others than app_owner, %v", others, err)
	}
}

func (s *system) archive(t *testing.T) {
	uri, database := devstacktest.Mongo(t)
	a, err := archive.New(archive.Config{
		Brokers: s.kafka.Secure.SASL, KafkaOptions: s.options(t, archiveUser), MongoURI: uri, Database: database,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Disconnect(context.Background()) }()
	store := archive.NewStore(client.Database(database), nil)
	devstacktest.Wait(t, "the archived events", time.Minute, func() bool {
		for _, id := range []string{"row", "message", "bad"} {
			page, err := store.Events(ctx, "user", id, 1, 1, "")
			if err != nil {
				t.Log(err)
			}
			if len(page.Events) != 1 {
				return len(done) > 0
			}
		}
		return true
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// refused is what the rights leave out.
func (s *system) refused(t *testing.T) {
	const denied = "42501"
	for user, statements := range map[string][]string{
		appUser: {
			"select from outbox", "update outbox set topic = ''", "delete from outbox", "truncate outbox", "select from outbox_default", "drop table outbox",
			"update inbox set topic = ''", "delete from inbox", "truncate inbox_dead", "create table mine ()",
			"select pg_create_logical_replication_slot('mine', 'pgoutput')", "create publication mine for table outbox",
		},
		keeperUser: {"create role other", "select pg_create_logical_replication_slot('mine', 'pgoutput')"},
		relayUser: {
			"select from outbox", "select from users", "insert into outbox default values", "delete from outbox", "create table mine ()",
			"insert into inbox_dead default values", "create publication mine for table outbox", "drop publication outbox",
		},
	} {
		var parameters []string
		if user == relayUser {
			parameters = []string{"sslcert", s.relay.CertFile, "sslkey", s.relay.KeyFile}
		}
		conn := connect(t, s.dsn(t, s.super, user, parameters...))
		for _, sql := range statements {
			_, err := conn.Exec(t.Context(), sql)
			if !isCode(err, denied) {
				t.Errorf("%s as %s: %v, want it refused", sql, user, err)
			}
		}
	}
	for name, change := range map[string]func(c *pgconn.Config){
		"a base backup":    func(c *pgconn.Config) { c.RuntimeParams["replication"] = "true" },
		"another database": func(c *pgconn.Config) { c.Database = "postgres" },
		"no certificate":   func(c *pgconn.Config) { c.TLSConfig.Certificates = nil },
		"no TLS":           func(c *pgconn.Config) { c.TLSConfig = nil },
	} {
		config, err := pgconn.ParseConfig(s.dsn(t, s.super, relayUser, "sslcert", s.relay.CertFile, "sslkey", s.relay.KeyFile))
		if err != nil {
			t.Fatal(err)
		}
		change(config)
		if conn, err := pgconn.ConnectConfig(t.Context(), config); err == nil || !isCode(err, "28000") {
			t.Errorf("%s: the relay's role connects: %v, want 28000", name, err)
			if conn != nil {
				_ = conn.Close(t.Context())
			}
		}
	}
	// A producer needs the right to write to some topic before it may write to one.
	for user, want := range map[string]struct {
		topic string
		err   error
	}{
		appUser:     {"user.created", kerr.ClusterAuthorizationFailed},
		archiveUser: {"user.created", kerr.ClusterAuthorizationFailed},
		relayUser:   {"other.created", kerr.TopicAuthorizationFailed},
	} {
		err := client(t, s.as(user)).ProduceSync(t.Context(), &kgo.Record{Topic: want.topic, Value: []byte("x")}).FirstErr()
		if !errors.Is(err, want.err) {
			t.Errorf("%s writes to %s: %v, want %v", user, want.topic, err, want.err)
		}
	}
}

func isCode(err error, code string) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == code
}
