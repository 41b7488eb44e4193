package check_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/schema"
	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/check"
)

type world struct {
	t      *testing.T
	conn   *pgx.Conn
	kafka  *kadm.Client
	config relay.Config
	topic  string
}

func newWorld(t *testing.T, dsn string) *world {
	t.Helper()
	brokers, name := devstacktest.Kafka(t), devstacktest.Name(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	w := &world{t: t, conn: conn, kafka: kadm.NewClient(client), topic: name + ".created", config: relay.Config{
		Postgres: dsn, Brokers: brokers, Source: name, Slot: name, PositionsTopic: "_" + name + ".positions", Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	migration, err := schema.FS.ReadFile("00001_outbox.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, _, _ := strings.Cut(string(migration), "-- +goose Down")
	w.exec(up)
	return w
}

func (w *world) exec(sql string) {
	w.t.Helper()
	if _, err := w.conn.Exec(w.t.Context(), sql); err != nil {
		w.t.Fatal(err)
	}
}

// publish runs a relay until it has published an event.
func (w *world) publish() {
	w.t.Helper()
	r, err := relay.New(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	devstacktest.Wait(w.t, "the relay to stream", 30*time.Second, func() bool { return r.Ready(ctx) == nil || len(done) > 0 })
	w.write()
	devstacktest.Wait(w.t, "the record", 30*time.Second, func() bool {
		topics, err := w.kafka.ListTopics(ctx)
		if err != nil || !topics.Has(w.topic) {
			return false
		}
		ends, err := w.kafka.ListEndOffsets(ctx, w.topic)
		n := int64(0)
		ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
		return err == nil && n > 0
	})
	cancel()
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write() {
	w.t.Helper()
	err := pgx.BeginFunc(w.t.Context(), w.conn, func(tx pgx.Tx) error {
		return outbox.Write(w.t.Context(), tx, outbox.Event{Topic: w.topic, AggregateType: "user", AggregateID: "a", Type: "UserCreated", Payload: []byte("{}")})
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) check() check.Report {
	w.t.Helper()
	c, err := check.New(check.Config{Relay: w.config})
	if err != nil {
		w.t.Fatal(err)
	}
	report, err := c.Run(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	_, _ = report.WriteTo(w.t.Output())
	return report
}

// state is what a check must leave as it is.
func (w *world) state() string {
	w.t.Helper()
	// A walsender has its slot for a moment after its relay has gone.
	devstacktest.Wait(w.t, "the slot to be free", 30*time.Second, func() bool {
		var free bool
		err := w.conn.QueryRow(w.t.Context(), `select not exists (select from pg_replication_slots where database = current_database() and active)`).Scan(&free)
		return err != nil || free
	})
	var database string
	// Without the columns of pg_class that autovacuum keeps.
	err := w.conn.QueryRow(w.t.Context(), `select
		(select coalesce(string_agg(slot_name || confirmed_flush_lsn || coalesce(active_pid, 0), ' '), '') from pg_replication_slots where database = current_database())
		|| (select md5(string_agg(concat_ws(' ', oid, relname, relnamespace, relfilenode, relowner, relkind, relacl::text, reloptions::text), ',' order by oid)) from pg_class c) || (select count(*) from outbox) || (select count(*) from pg_publication)
		|| (select md5(string_agg(s.name || s.setting, ',' order by s.name)) from pg_settings s where source <> 'session')`).Scan(&database)
	if err != nil {
		w.t.Fatal(err)
	}
	topics, err := w.kafka.ListTopics(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	own := slices.DeleteFunc(topics.Names(), func(name string) bool { return !strings.Contains(name, w.config.Source) })
	state := fmt.Sprint(database, own)
	if len(own) > 0 {
		ends, err := w.kafka.ListEndOffsets(w.t.Context(), own...)
		configs, errConfigs := w.kafka.DescribeTopicConfigs(w.t.Context(), own...)
		if err != nil || errConfigs != nil {
			w.t.Fatal(err, errConfigs)
		}
		for _, o := range ends.Offsets().Sorted() {
			state += fmt.Sprint(" ", o.Topic, o.Partition, o.At)
		}
		for _, c := range configs {
			for _, entry := range c.Configs {
				state += " " + entry.Key + "=" + entry.MaybeValue()
			}
		}
	}
	return state
}

// TestOfEveryVersion finds no errors before the first start and behind it, and
// changes nothing.
func TestOfEveryVersion(t *testing.T) {
	for _, version := range []string{"14", "15", "16", "17", "18"} {
		t.Run(version, func(t *testing.T) {
			w := newWorld(t, devstacktest.DatabaseOf(t, version))
			w.config.Failover = version >= "17"
			for _, when := range []string{"before the first start", "behind it"} {
				before := w.state()
				report := w.check()
				if after := w.state(); after != before {
					t.Errorf("%s, the check has changed something:\nbefore %s\nafter  %s", when, before, after)
				}
				if worst := report.Worst(); worst == check.Error || worst == check.Broken {
					t.Errorf("%s: worst %s", when, worst)
				}
				if when == "before the first start" {
					w.publish()
				}
			}
		})
	}
}

// TestFindings breaks one thing at a time.
func TestFindings(t *testing.T) {
	tests := map[string]struct {
		published  bool // before it is broken
		broken     func(w *world)
		area, name string // SLOT, TOPIC and POSITIONS stand for the world's
		level      check.Level
		next       string
	}{
		"no table":             {broken: func(w *world) { w.exec(`drop table outbox`) }, area: "table", name: "outbox", level: check.Error, next: "goose"},
		"no column":            {broken: func(w *world) { w.exec(`alter table outbox drop column headers`) }, area: "table", name: "columns", level: check.Error, next: "outbox/schema"},
		"another type":         {broken: func(w *world) { w.exec(`alter table outbox alter aggregate_version type int4`) }, area: "table", name: "columns", level: check.Error},
		"no default partition": {broken: func(w *world) { w.exec(`drop table outbox_default`) }, area: "table", name: "default partition", level: check.Warning, next: "create table outbox_default"},
		"toast":                {broken: func(w *world) { w.exec(`alter table outbox_default reset (toast_tuple_target)`) }, area: "table", name: "toast_tuple_target", level: check.Warning, next: "alter table outbox_default"},
		"publishes updates": {broken: func(w *world) {
			w.exec(`create publication outbox for table outbox with (publish = 'update', publish_via_partition_root = true)`)
		}, area: "publication", name: "outbox", level: check.Error, next: "create publication another_name"},
		"publishes leaves": {broken: func(w *world) { w.exec(`create publication outbox for table outbox with (publish = 'insert')`) }, area: "publication", name: "outbox", level: check.Error},
		"lacks the table": {broken: func(w *world) {
			w.exec(`create publication outbox with (publish = 'insert', publish_via_partition_root = true)`)
		}, area: "publication", name: "outbox", level: check.Error},
		"row filter": {broken: func(w *world) {
			w.exec(`create publication outbox for table outbox where (topic <> 'a') with (publish = 'insert', publish_via_partition_root = true)`)
		}, area: "publication", name: "outbox", level: check.Error},
		"column list": {broken: func(w *world) {
			w.exec(`create publication outbox for table outbox (id, topic) with (publish = 'insert', publish_via_partition_root = true)`)
		}, area: "publication", name: "outbox", level: check.Error},
		"publication dropped": {published: true, broken: func(w *world) { w.exec(`drop publication outbox`) }, area: "publication", name: "outbox", level: check.Broken, next: "relay recover"},
		"slot dropped":        {published: true, broken: func(w *world) { w.exec(`select pg_drop_replication_slot('` + w.config.Slot + `')`) }, area: "slot", name: "SLOT", level: check.Broken, next: "relay recover"},
		"slot ahead": {published: true, broken: func(w *world) {
			w.exec(`set synchronous_commit = on`) // a slot goes no further than what is flushed
			w.write()
			w.advance()
		}, area: "slot", name: "SLOT", level: check.Broken, next: "relay recover"},
		"slot of another kind": {broken: func(w *world) { w.exec(`select pg_create_physical_replication_slot('` + w.config.Slot + `')`) }, area: "slot", name: "SLOT", level: check.Error, next: "--slot another_name"},
		"slot and no position": {broken: func(w *world) {
			w.exec(`select pg_create_logical_replication_slot('` + w.config.Slot + `', 'pgoutput')`)
		}, area: "slot", name: "SLOT", level: check.Broken, next: "--positions-topic"},
		"positions not compact": {published: true, broken: func(w *world) { w.alter(w.config.PositionsTopic, "cleanup.policy", "delete") }, area: "kafka", name: "POSITIONS", level: check.Error, next: "cleanup.policy=compact"},
		"small topic":           {published: true, broken: func(w *world) { w.alter(w.topic, "max.message.bytes", "5000") }, area: "kafka", name: "TOPIC", level: check.Warning, next: "max.message.bytes=1002048"},
		"too few replicas":      {published: true, broken: func(w *world) { w.alter(w.topic, "min.insync.replicas", "2") }, area: "kafka", name: "TOPIC", level: check.Error, next: "min.insync.replicas=1"},
		"no brokers": {broken: func(w *world) {
			w.config.Brokers = []string{"127.0.0.1:1"}
			w.config.Kafka = []kgo.Opt{kgo.RequestRetries(0)}
		}, area: "kafka", name: "brokers", level: check.Error, next: "--brokers"},
		"no database": {broken: func(w *world) { w.config.Postgres = "postgres://127.0.0.1:1/none" }, area: "server", name: "connection", level: check.Error, next: "--postgres"},
		"no rights": {broken: func(w *world) {
			w.exec(`create role ` + w.config.Slot + ` login; grant create, usage on schema public to ` + w.config.Slot)
			w.t.Cleanup(func() {
				_, _ = w.conn.Exec(context.Background(), `drop owned by `+w.config.Slot+`; drop role `+w.config.Slot)
			})
			w.config.Postgres += "&options=-crole%3D" + w.config.Slot
		}, area: "role", name: "REPLICATION", level: check.Error, next: "alter role"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, devstacktest.Database(t))
			if tt.published {
				w.publish()
			}
			tt.broken(w)
			want := strings.NewReplacer("SLOT", w.config.Slot, "TOPIC", w.topic, "POSITIONS", w.config.PositionsTopic).Replace(tt.name)
			report := w.check()
			found := slices.IndexFunc(report.Findings, func(f check.Finding) bool { return f.Area == tt.area && f.Name == want })
			if found < 0 {
				t.Fatalf("no finding of %s %s", tt.area, want)
			}
			f := report.Findings[found]
			if f.Level != tt.level || !strings.Contains(f.Next, tt.next) || f.Next == "" {
				t.Errorf("finding %+v: want level %s, and %q to type", f, tt.level, tt.next)
			}
			for _, other := range report.Findings {
				if other.Level != check.OK && other.Next == "" {
					t.Errorf("finding %+v says nothing to type", other)
				}
			}
		})
	}
}

// advance moves the slot on, as somebody might who wants to be rid of its log.
func (w *world) advance() {
	w.t.Helper()
	var before, after string
	err := w.conn.QueryRow(w.t.Context(), `select s.confirmed_flush_lsn::text, (select end_lsn::text from pg_replication_slot_advance(s.slot_name, pg_current_wal_flush_lsn()))
		from pg_replication_slots s where s.slot_name = $1`, w.config.Slot).Scan(&before, &after)
	if err != nil || before == after {
		w.t.Fatalf("advance the slot from %s to %s, %v", before, after, err)
	}
}

func (w *world) alter(topic, key, value string) {
	w.t.Helper()
	responses, err := w.kafka.AlterTopicConfigs(w.t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, topic)
	if err == nil {
		err = responses[0].Err
	}
	if err != nil {
		w.t.Fatal(err)
	}
	devstacktest.Wait(w.t, "the configuration to be there", 10*time.Second, func() bool {
		configs, err := w.kafka.DescribeTopicConfigs(w.t.Context(), topic)
		if err != nil {
			return false
		}
		return slices.ContainsFunc(configs[0].Configs, func(c kadm.Config) bool { return c.Key == key && c.MaybeValue() == value })
	})
}

func TestTheTable(t *testing.T) {
	t.Parallel()
	report := check.Report{Findings: []check.Finding{
		{Area: "server", Name: "wal_level", Level: check.OK, What: "logical"},
		{Area: "table", Name: "columns", Level: check.Error, What: "headers is missing", Next: "compare it"},
		{Area: "slot", Name: "outbox_userdb", Level: check.Broken, What: "it is gone", Next: "relay recover"},
	}}
	var b strings.Builder
	if _, err := report.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	want := `ok      server  wal_level      logical
ERROR   table   columns        headers is missing
                               -> compare it
BROKEN  slot    outbox_userdb  it is gone
                               -> relay recover
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	if report.Worst() != check.Broken {
		t.Errorf("worst %s", report.Worst())
	}
}
