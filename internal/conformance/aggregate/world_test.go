package aggregate_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io/fs"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/outbox/schema"
)

// account is the state of the aggregate under test, one row of accounts.
type account struct {
	Owner  string `json:"owner"`
	Cents  int64  `json:"cents"`
	Closed bool   `json:"closed"`
}

type (
	opened    struct{ Owner string }
	deposited struct{ Cents int64 }
	closed    struct{}
)

// fataler is *testing.T, testing.TB and *rapid.T.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func define(t fataler, w outbox.Writer) *aggregate.Definition[account] {
	t.Helper()
	return defineIn(t, w, "account")
}

// defineIn is define with topics whose names begin with prefix.
func defineIn(t fataler, w outbox.Writer, prefix string) *aggregate.Definition[account] {
	t.Helper()
	def, err := aggregate.New(aggregate.Config[account]{
		Type: "account", Writer: w,
		Events: []aggregate.EventType[account]{
			aggregate.On(outbox.Typed[opened]{Name: "AccountOpened", Topic: prefix + ".opened"}, func(a *account, e opened) { a.Owner = e.Owner }),
			aggregate.On(outbox.Typed[deposited]{Name: "MoneyDeposited", Topic: prefix + ".money", Version: 2}, func(a *account, e deposited) { a.Cents += e.Cents }),
			aggregate.On(outbox.Typed[closed]{Name: "AccountClosed", Topic: prefix + ".closed"}, func(a *account, _ closed) { a.Closed = true }),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return def
}

const (
	insertRow = `insert into accounts (id, version, owner, cents, closed) values ($1, $2, $3, $4, $5) on conflict (id) do nothing`
	updateRow = `update accounts set version = $3, owner = $4, cents = $5, closed = $6 where id = $1 and version = $2;`
)

// statement gives what saves root.
func statement(root *aggregate.Root[account]) (sql string, args []any) {
	a := root.State()
	if root.Expected() == 0 {
		return insertRow, []any{root.ID(), root.Version(), a.Owner, a.Cents, a.Closed}
	}
	return updateRow, []any{root.ID(), root.Expected(), root.Version(), a.Owner, a.Cents, a.Closed}
}

// A way is a way to save.
type way func(ctx context.Context, db *pgxpool.Pool, root *aggregate.Root[account]) error

// ways are all of them; each takes care of what a caller must do on an error.
var ways = map[string]way{
	"pool": func(ctx context.Context, db *pgxpool.Pool, root *aggregate.Root[account]) error {
		sql, args := statement(root)
		return root.Save(ctx, db, sql, args...)
	},
	"transaction": func(ctx context.Context, db *pgxpool.Pool, root *aggregate.Root[account]) error {
		return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			sql, args := statement(root)
			return root.Save(ctx, tx, sql, args...)
		})
	},
	"batch": func(ctx context.Context, db *pgxpool.Pool, root *aggregate.Root[account]) error {
		return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			var batch pgx.Batch
			sql, args := statement(root)
			batch.Queue(`select 1`)
			if err := root.Queue(ctx, &batch, sql, args...); err != nil {
				return err
			}
			return tx.SendBatch(ctx, &batch).Close()
		})
	},
}

var modes = []outbox.Mode{outbox.Rows, outbox.Packed, outbox.WAL}

// A world is a database with the tables, and what reads its events.
type world struct {
	dsn  string
	db   *pgxpool.Pool
	slot string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{dsn: devstacktest.Database(t), slot: devstacktest.Name(t)}
	w.db = w.pool(t, pgx.QueryExecModeCacheStatement, nil)
	files, err := fs.Glob(schema.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		migration, err := schema.FS.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		up, _, _ := strings.Cut(string(migration), "-- +goose Down")
		w.exec(t, up)
	}
	w.exec(t, `create table accounts (id text primary key, version bigint not null, owner text not null unique, cents bigint not null, closed boolean not null)`)
	w.exec(t, `create publication messages`) // without a table: of the messages only
	w.exec(t, `select pg_create_logical_replication_slot('`+w.slot+`', 'pgoutput')`)
	return w
}

func (w *world) pool(t testing.TB, mode pgx.QueryExecMode, tracer pgx.QueryTracer) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(w.dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 10
	config.ConnConfig.RuntimeParams["synchronous_commit"] = "on" // a slot gives only what has been flushed
	config.ConnConfig.DefaultQueryExecMode = mode
	config.ConnConfig.Tracer = tracer
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func (w *world) exec(t fataler, sql string) {
	t.Helper()
	if _, err := w.db.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// load gives the account as its row is, nil where it has none.
func (w *world) load(t fataler, def *aggregate.Definition[account], id string) *aggregate.Root[account] {
	t.Helper()
	var version int64
	var a account
	rows, err := w.db.Query(context.Background(), `select version, owner, cents, closed from accounts where id = $1`, id)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*aggregate.Root[account], error) {
		err := row.Scan(&version, &a.Owner, &a.Cents, &a.Closed)
		return def.Load(id, version, a), err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		return nil
	}
	return found[0]
}

// take gives the committed events of every mode in commit order, and removes
// them.
func (w *world) take(t fataler, mode outbox.Mode) []envelope.Event {
	t.Helper()
	var all []envelope.Event
	if mode != outbox.WAL {
		rows, err := w.db.Query(context.Background(), `with taken as (delete from outbox returning *)
			select id, topic, aggregate_type, aggregate_id, type, coalesce(aggregate_version, 0), headers, payload from taken order by id`)
		if err != nil {
			t.Fatal(err)
		}
		_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
			var e envelope.Event
			var headers map[string]string
			err := row.Scan(&e.ID, &e.Topic, &e.AggregateType, &e.AggregateID, &e.Type, &e.AggregateVersion, &headers, &e.Payload)
			for name, value := range headers {
				e.Headers = append(e.Headers, envelope.Header{Name: name, Value: value})
			}
			if e.Type == envelope.RowType {
				all = append(all, unpack(t, e.Payload)...)
			} else {
				all = append(all, e)
			}
			return struct{}{}, err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, content := range w.messages(t) {
		all = append(all, unpack(t, content[envelope.TimeBytes:])...)
	}
	return all
}

// messages gives the content of the outbox's messages in the write-ahead log.
func (w *world) messages(t fataler) (contents [][]byte) {
	t.Helper()
	rows, err := w.db.Query(context.Background(), `select data from pg_logical_slot_get_binary_changes($1, null, null,
		'proto_version', '1', 'publication_names', 'messages', 'messages', 'true')`, w.slot)
	if err != nil {
		t.Fatal(err)
	}
	changes, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		// 'M', flags, 8 bytes of LSN, the prefix up to NUL, 4 bytes of length.
		if change[0] != 'M' {
			continue
		}
		prefix, rest, ok := bytes.Cut(change[10:], []byte{0})
		if !ok || string(prefix) != outbox.DefaultPrefix || int(binary.BigEndian.Uint32(rest)) != len(rest)-4 {
			t.Fatalf("a message of another form: %q", change)
		}
		contents = append(contents, rest[4:])
	}
	return contents
}

func unpack(t fataler, content []byte) (all []envelope.Event) {
	t.Helper()
	r, err := envelope.NewReader(content)
	if err != nil {
		t.Fatal(err)
	}
	for {
		var e envelope.Event
		ok, err := r.Next(&e)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return all
		}
		all = append(all, e)
	}
}

// replay gives the account that events, of one account, give.
func replay(t fataler, def *aggregate.Definition[account], id string, events []envelope.Event) *aggregate.Root[account] {
	t.Helper()
	root := def.New(id)
	for _, e := range events {
		past := aggregate.Past{Version: e.AggregateVersion, Type: e.Type, Payload: e.Payload}
		for _, h := range e.Headers {
			if h.Name == outbox.HeaderSchemaVersion {
				past.SchemaVersion = h.Value
			}
		}
		if err := root.Apply(past); err != nil {
			t.Fatal(err)
		}
	}
	return root
}
