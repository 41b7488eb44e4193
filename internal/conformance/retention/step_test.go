package retention_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/retention"
)

// TestPartitionsComeAndGo follows partitions from when they are made to when
// they are dropped, on every version of PostgreSQL.
func TestPartitionsComeAndGo(t *testing.T) {
	for _, version := range []string{"14", "15", "16", "17", "18"} {
		t.Run(version, func(t *testing.T) {
			w := newWorld(t, devstacktest.DatabaseOf(t, version)).withRelay()
			// Bounds must be read right whatever the session's settings.
			w.exec(`do $$ begin execute format('alter database %I set datestyle = ''German''; alter database %1$I set timezone = ''Pacific/Chatham''', current_database()); end $$`)
			w.pool.Reset()
			stop := w.start()

			p := w.step(today)
			if want := []string{"outbox_p20251124", "outbox_p20251125", "outbox_p20251126", "outbox_p20251127"}; !slices.Equal(p.Made, want) {
				t.Fatalf("first pass made %v, want %v", p.Made, want)
			}
			ids := w.write(today, today.Add(day), today.Add(2*day))
			if p := w.step(today); len(p.Made)+len(p.Detached)+len(p.Dropped) > 0 || !p.Oldest.Equal(today.Add(-12*time.Hour)) {
				t.Errorf("the same pass again did something, or the oldest partition is wrong: %+v", p)
			}
			if got := w.query(`select count(*)::text from outbox_default`); got != "0" {
				t.Errorf("%s rows in the default partition, want 0", got)
			}
			w.published(len(ids))

			// The partition of the 24th ends at midnight of the 25th.
			late := today.Add(7*day + 12*time.Hour - time.Microsecond)
			if p := w.step(late); len(p.Detached) > 0 {
				t.Errorf("detached %v a moment before they were 7 days old", p.Detached)
			}
			late = late.Add(time.Microsecond)
			stop()
			if p := w.step(late); !slices.Equal(p.Detached, []string{"outbox_p20251124"}) || len(p.Dropped) > 0 || len(p.Waiting) != 1 || p.Waiting[0].Table != "outbox_p20251124" || p.Waiting[0].Bytes == 0 {
				t.Errorf("a pass with a stopped relay: %+v, want outbox_p20251124 detached and waiting", p)
			}
			// By another runner, as after a crash between the two.
			if p := w.step(late); len(p.Detached)+len(p.Dropped) > 0 || len(p.Waiting) != 1 {
				t.Errorf("the next pass with a stopped relay: %+v, want outbox_p20251124 waiting", p)
			}
			stop = w.start()
			w.pass()
			if p := w.step(late); !slices.Equal(p.Dropped, []string{"outbox_p20251124"}) || len(p.Waiting) > 0 {
				t.Errorf("a pass when the relay had passed it: %+v, want outbox_p20251124 dropped", p)
			}
			stop()
			if got := w.published(len(ids)); !slices.Equal(sorted(got), sorted(ids)) {
				t.Errorf("published %v, want each of %v once", got, ids)
			}
		})
	}
}

// TestRowsAreMovedOutOfTheDefaultPartition writes before partitions are made,
// moves the rows, and finds each of them once in Kafka and in the table: the
// relay decodes the move before, while and after it publishes the rows, and
// whatever the publication publishes.
func TestRowsAreMovedOutOfTheDefaultPartition(t *testing.T) {
	publications := map[string]string{
		"the relay's":      "",
		"of all tables":    "for all tables with (publish = 'insert', publish_via_partition_root = true)",
		"of every command": "for table outbox with (publish_via_partition_root = true)",
	}
	for name, publication := range publications {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, devstacktest.Database(t)).withRelay()
			if publication != "" {
				w.exec("alter table outbox replica identity full; alter table outbox_default replica identity full")
				w.exec("create publication publication_of_" + w.topic + " " + publication)
			}
			stop := w.start()
			times := []time.Time{today, today.Add(day), today.Add(-3 * day), today.Add(-20 * day), today.Add(30 * day)}
			ids := w.write(times...)
			if p := w.step(today); p.Moved != 4 {
				t.Errorf("moved %d rows, want 4: all but the one far ahead (%+v)", p.Moved, p)
			}
			stop()
			ids = append(ids, w.write(today.Add(4*day), today.Add(-2*day))...) // moved before the relay sees them
			if p := w.step(today.Add(4 * day)); p.Moved != 2 {
				t.Errorf("moved %d rows, want 2", p.Moved)
			}
			ids = append(ids, w.write(today.Add(4*day))...)
			stop = w.start()
			got := w.published(len(ids))
			stop()
			if diff := cmp.Diff(sorted(ids), sorted(got)); diff != "" {
				t.Errorf("published, want each once:\n%s", diff)
			}
			// That of 20 days ago is detached by now, the others are all there.
			left := strings.Split(w.query(`select string_agg(id::text, ',' order by id::text) from (select id from outbox union all select id from outbox_p20251104) as all_rows`), ",")
			if diff := cmp.Diff(sorted(ids), sorted(left)); diff != "" {
				t.Errorf("in the table:\n%s", diff)
			}
			if got := w.query(`select count(*)::text from outbox_default`); got != "1" {
				t.Errorf("%s rows in the default partition, want the one far ahead", got)
			}
		})
	}
}

// TestAnyNames keeps a table whose names must be quoted, in a schema that is
// not in the search path.
func TestAnyNames(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.exec(`create schema "Odd ""schema"; alter table outbox set schema "Odd ""schema"; alter table outbox_default set schema "Odd ""schema";
		alter table "Odd ""schema".outbox rename to "Out'box \ №1"; alter table "Odd ""schema"."Out'box \ №1" add column "a ""b" text generated always as (topic || '!') stored`)
	w.table = []string{`Odd "schema`, `Out'box \ №1`}
	w.slot(w.topic)
	w.write(today, today.Add(-10*day))
	p := w.step(today)
	if p.Moved != 2 || !slices.Equal(p.Detached, []string{`Out'box \ №1_p20251114`}) {
		t.Fatalf("first pass: %+v", p)
	}
	w.advance(w.topic)
	if p := w.step(today); !slices.Equal(p.Dropped, []string{`Out'box \ №1_p20251114`}) {
		t.Errorf("second pass: %+v, want the old partition dropped", p)
	}
	if got := w.query(`select string_agg("a ""b", ',') from ` + w.table.Sanitize()); got != w.topic+"!" {
		t.Errorf("the generated column holds %q, want %q", got, w.topic+"!")
	}
}

// TestPeriodsChange keeps a table whose partitions somebody else made, and
// then with other periods.
func TestPeriodsChange(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.exec(`create table outbox_by_hand partition of outbox for values from ('2025-11-24 06:30+00') to ('2025-11-24 18:00+00');
		create table outbox_ancient partition of outbox for values from (minvalue) to ('2025-01-01 00:00+00')`)
	w.slot(w.topic)
	for _, period := range []retention.Period{retention.Week, retention.Hour, retention.Day, retention.Month} {
		w.step(today, func(c *retention.Config) { c.Period, c.Ahead = period, 2 })
	}
	for at := today.Add(-36 * time.Hour); at.Before(time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)); at = at.Add(5 * time.Hour) {
		w.write(at)
	}
	if got := w.query(`select count(*)::text from outbox_default`); got != "0" {
		t.Errorf("%s rows in the default partition, want 0", got)
	}
}

// TestOldRowsComeAfterTheirPartitionWentAway writes rows of a time whose
// partition is detached and not yet dropped, again and again.
func TestOldRowsComeAfterTheirPartitionWentAway(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.slot(w.topic)
	var want []string
	for _, name := range []string{"outbox_p20251104", "outbox_p20251104_2", "outbox_p20251104_3"} {
		w.write(today.Add(-20 * day))
		if p := w.step(today); !slices.Equal(p.Detached, []string{name}) || p.Moved != 1 {
			t.Fatalf("the pass did %+v, want %s detached", p, name)
		}
		want = append(want, name)
	}
	w.advance(w.topic)
	if p := w.step(today); !slices.Equal(p.Dropped, want) {
		t.Errorf("dropped %v, want %v", p.Dropped, want)
	}
}

// TestWhatIsNoPlainTableIsLeftAlone keeps a partition that is partitioned
// itself, and says how to take it away.
func TestWhatIsNoPlainTableIsLeftAlone(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.slot(w.topic)
	w.exec(`create table outbox_sub partition of outbox for values from ('2025-01-01') to ('2025-02-01') partition by list (topic);
		create table outbox_old partition of outbox for values from ('2025-02-01') to ('2025-03-01')`)
	p, err := w.retention(today).Step(t.Context())
	if err == nil || !strings.Contains(err.Error(), `alter table "outbox" detach partition "public"."outbox_sub";`) || !slices.Equal(p.Detached, []string{"outbox_old"}) {
		t.Errorf("the pass did %+v and gave %v, want outbox_old detached and what to type for outbox_sub", p, err)
	}
}

// TestNewPartitionsAreStoredAsTheDefaultOne sets storage parameters there, of
// the table and of what is moved out of its rows.
func TestNewPartitionsAreStoredAsTheDefaultOne(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.exec(`alter table outbox_default set (toast_tuple_target = 4080, autovacuum_enabled = off, toast.autovacuum_enabled = off);
		create table outbox_by_hand partition of outbox for values from ('2025-11-20') to ('2025-11-21')`)
	w.step(today)
	const options = `select c.reloptions::text || t.reloptions::text from pg_class c join pg_class t on t.oid = c.reltoastrelid where c.relname = $1`
	if got, want := w.query(options, "outbox_p20251124"), "{toast_tuple_target=4080,autovacuum_enabled=off}{autovacuum_enabled=off}"; got != want {
		t.Errorf("the new partition has %s, want %s", got, want)
	}
}

// TestAsTheOwner makes passes as a role that owns the table and nothing else,
// and as a member of it.
func TestAsTheOwner(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.slot(w.topic)
	owner, member := w.topic+"_o", w.topic+"_m"
	w.exec(fmt.Sprintf(`create role %[1]s; create role %[2]s login in role %[1]s; alter table outbox owner to %[1]s; alter table outbox_default owner to %[1]s;
		grant create on schema public to %[1]s`, owner, member))
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), w.dsn)
		if err == nil {
			_, err = conn.Exec(context.Background(), fmt.Sprintf(`drop owned by %[1]s, %[2]s cascade; drop role %[1]s, %[2]s`, owner, member), pgx.QueryExecModeSimpleProtocol)
			err = errors.Join(err, conn.Close(context.Background()))
		}
		if err != nil {
			t.Error(err)
		}
	})
	for _, role := range []string{member, owner} {
		conn, err := pgx.Connect(t.Context(), w.dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.Background()) }()
		if _, err := conn.Exec(t.Context(), "set session authorization "+role); err != nil {
			t.Fatal(err)
		}
		w.write(today, today.Add(-20*day))
		as := func(c *retention.Config) { c.DB = conn }
		if p := w.step(today, as); len(p.Detached) != 1 {
			t.Errorf("as %s: %+v, want one partition detached", role, p)
		}
		w.advance(w.topic)
		if p := w.step(today, as); len(p.Dropped) != 1 {
			t.Errorf("as %s: %+v, want one partition dropped", role, p)
		}
		if got := w.query(`select string_agg(distinct pg_get_userbyid(relowner), ',') from pg_class where relname like 'outbox%' and relkind in ('r', 'p')`); got != owner {
			t.Errorf("as %s: the tables belong to %s, want all of them %s", role, got, owner)
		}
	}
}

// TestALargeDefaultPartitionIsSetAside runs what the documentation says to
// type, with a stopped relay, and finds every row in Kafka once.
func TestALargeDefaultPartitionIsSetAside(t *testing.T) {
	manual, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(manual), "### A large default partition")
	_, sql, ok2 := strings.Cut(section, "```sql\n")
	sql, _, ok3 := strings.Cut(sql, "```")
	if !ok || !ok2 || !ok3 {
		t.Fatal("docs/operations.md has no statements under that heading")
	}
	w := newWorld(t, devstacktest.Database(t)).withRelay()
	w.start()()
	ids := w.write(today, today.Add(-20*day))
	w.exec(sql)
	ids = append(ids, w.write(today, today.Add(-20*day))...)
	if p := w.step(today); p.Moved != 2 || slices.Contains(p.Detached, "outbox_before") {
		t.Errorf("the pass did %+v, want the 2 new rows moved", p)
	}
	stop := w.start()
	got := w.published(len(ids))
	stop()
	if diff := cmp.Diff(sorted(ids), sorted(got)); diff != "" {
		t.Errorf("published, want each once:\n%s", diff)
	}
	if n := w.query(`select count(*)::text from outbox_before`); n != "2" {
		t.Errorf("%s rows were set aside, want 2", n)
	}
}

// TestBehindAPooler makes passes by way of PgBouncer in transaction mode, in
// the protocol modes of pgx that it takes.
func TestBehindAPooler(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) {
			w := newWorld(t, devstacktest.Database(t))
			w.slot(w.topic)
			config, err := pgxpool.ParseConfig(devstacktest.Pgbouncer(t, w.dsn))
			if err != nil {
				t.Fatal(err)
			}
			config.ConnConfig.DefaultQueryExecMode = mode
			pooled, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer pooled.Close()
			behind := func(c *retention.Config) { c.DB = pooled }
			w.write(today, today.Add(-20*day))
			if p := w.step(today, behind); p.Moved != 2 || len(p.Detached) != 1 {
				t.Errorf("first pass: %+v, want 2 rows moved and a partition detached", p)
			}
			w.advance(w.topic)
			if p := w.step(today, behind); len(p.Dropped) != 1 {
				t.Errorf("second pass: %+v, want a partition dropped", p)
			}
		})
	}
}
