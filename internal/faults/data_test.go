package faults

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
)

// dataFaults are what is written, together with a fault in the middle of it.
func dataFaults() []fault {
	all := []fault{
		{name: "row too large for its topic", again: anyNumber, do: tooLarge},
		{name: "columns and partitions change", do: tableChanges},
		{name: "partition switches", again: anyNumber, do: partitionSwitches},
		{name: "partition dropped before it is read", again: anyNumber, do: partitionDropped},
		{name: "idle with others' log", quiet: true, do: idle},
	}
	for _, mode := range []outbox.Mode{outbox.Rows, outbox.Packed, outbox.WAL} {
		all = append(all, fault{
			name: "transaction of 10000 cut " + mode.String(), quiet: true, again: 1,
			do: func(w *world) { cutInside(w, mode) },
		})
	}
	return all
}

// transact runs one transaction on keys k0 and k1.
func (w *world) transact(f func(ctx context.Context, b *book) error) {
	w.t.Helper()
	ctx := w.t.Context()
	w.must(pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		b, err := w.load.begin(ctx, tx, []string{"k0", "k1"})
		if err != nil {
			return err
		}
		if err := f(ctx, b); err != nil {
			return err
		}
		return b.finish(ctx)
	}))
}

// write writes count events of size bytes in one call; rows go by COPY where
// they are many.
func (b *book) write(ctx context.Context, mode outbox.Mode, count, size int) error {
	n := 0
	return outbox.Writer{Mode: mode}.Write(ctx, b.tx, b.events(mode, count, func() (string, int) {
		n++
		return b.keys[n%len(b.keys)], size
	})...)
}

// cutInside cuts the connection inside the delivery of one transaction, at two
// places, and then kills the relay in it.
func cutInside(w *world, mode outbox.Mode) {
	const count, size = 10_000, 200
	cut := w.pgNetwork.CutAfter(devstack.ToClient, count*size/4)
	w.transact(func(ctx context.Context, b *book) error { return b.write(ctx, mode, count, size) })
	w.await("the cut", cut)
	w.await("the second cut", w.pgNetwork.CutAfter(devstack.ToClient, count*size/2))
	some := w.seen.count()
	w.must(w.seen.reach(some+1, patience, w.relay.Done()))
	w.relay.Kill()
	w.relay.Start()
}

// tooLarge writes a row of 5 MB, which the topic does not take: the relay says
// so and stops, publishing nothing behind it to that partition, and goes on when
// the topic takes it.
func tooLarge(w *world) {
	large := make([]byte, 5<<20) // zeros: in the table, and in the batch, a few kilobytes
	writer := outbox.Writer{MaxBytes: 6 << 20}
	write := func(mode outbox.Mode) {
		w.transact(func(ctx context.Context, b *book) error {
			writer := writer
			writer.Mode = mode
			return writer.Write(ctx, b.tx, b.enter(mode, "k0", []byte("before")), b.enter(mode, "k0", large), b.enter(mode, "k0", []byte("behind")))
		})
	}
	limit := func(bytes string) { w.alterTopics("max.message.bytes", bytes) }
	if state := w.relay.End(syscall.SIGTERM); !state.Success() { // a relay learns a topic's limit once
		w.t.Errorf("the relay ended with %v", state)
	}
	limit("1000000")
	w.relay.Start()
	write(outbox.Rows)
	select {
	case <-w.relay.Done():
	case <-time.After(patience):
		w.t.Fatal("the relay goes on behind a row that its topic does not take")
	}
	if state := w.relay.End(0); state.ExitCode() != 1 {
		w.t.Errorf("the relay ended with %v, want exit status 1", state)
	}
	if said := w.said.String(); !strings.Contains(said, "max.message.bytes") || !strings.Contains(said, "topic "+w.topics[0]) {
		w.t.Errorf("the relay does not say which topic to raise: %s", said[max(0, len(said)-1000):])
	}
	limit("6000000")
	w.relay.Start()
	w.flow(10)
	write(outbox.Packed)
	write(outbox.WAL)
	w.flow(10)
	w.relay.Kill()
	w.relay.Start()
}

// tableChanges moves columns and adds partitions while the writers write, and
// in the middle of a transaction.
func tableChanges(w *world) {
	round := w.logEnd()
	name := strings.ReplaceAll(strings.ToLower(round.String()), "/", "_")
	day := w.seen.count() // a partition of each round's own
	from := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(day) * time.Hour)
	bounds := fmt.Sprintf(`for values from ('%s') to ('%s')`, from.Format(time.RFC3339), from.Add(time.Minute).Format(time.RFC3339))
	for _, change := range []string{
		`alter table outbox add column tenant_` + name + ` text`,
		`alter table outbox add column origin_` + name + ` text not null default 'x'`,
		`create table outbox_` + name + ` (like outbox including all)`,
		`alter table outbox attach partition outbox_` + name + ` ` + bounds,
		`alter table outbox drop column tenant_` + name,
		`create index on outbox (id)`,
		`alter table outbox drop column headers, add column headers jsonb`, // the last one now
		`alter table outbox detach partition outbox_` + name,
	} {
		w.load.burst(20)
		_, err := w.pool.Exec(w.t.Context(), change)
		w.must(err)
		w.flow(30)
	}
	w.transact(func(ctx context.Context, b *book) error {
		for _, change := range []string{`add column late_` + name + ` int default 7`, `drop column origin_` + name, `drop column headers, add column headers jsonb`, `alter column topic type varchar`, `alter column topic type text`} {
			if err := b.write(ctx, outbox.Rows, 3, 100); err != nil {
				return err
			}
			if _, err := b.tx.Exec(ctx, `alter table outbox `+change); err != nil {
				return err
			}
		}
		return b.write(ctx, outbox.Packed, 3, 100)
	})
	w.flow(30)
}

// switches makes two partitions that follow each other in a moment, and
// returns when rows have gone into the first.
func (w *world) switches() (first, second string) {
	w.t.Helper()
	var begin time.Time
	w.must(w.pool.QueryRow(w.t.Context(), `select clock_timestamp()`).Scan(&begin))
	first, second = fmt.Sprintf("outbox_%d", begin.UnixMicro()), fmt.Sprintf("outbox_%d", begin.UnixMicro()+1)
	for i, name := range []string{first, second} {
		bound := func(n int) string {
			return begin.Add(time.Duration(n+1) * time.Second).Format("2006-01-02 15:04:05.999999Z07:00")
		}
		to := bound(i + 1)
		if i == 1 {
			to = bound(3) // then the default partition's again
		}
		_, err := w.pool.Exec(w.t.Context(), fmt.Sprintf(`create table %s partition of outbox for values from ('%s') to ('%s')`, name, bound(i), to))
		w.must(err)
	}
	w.filled(first)
	return first, second
}

// filled waits until a partition has rows.
func (w *world) filled(partition string) {
	w.t.Helper()
	devstacktest.Wait(w.t, "rows in "+partition, patience, func() (found bool) {
		w.must(w.pool.QueryRow(w.t.Context(), `select exists (select from `+partition+`)`).Scan(&found))
		return found
	})
}

// partitionSwitches kills the relay around the switch.
func partitionSwitches(w *world) {
	_, second := w.switches()
	w.relay.Kill()
	w.relay.Start()
	w.filled(second)
	w.flow(100)
}

// partitionDropped drops a partition whose rows the relay has not yet read:
// they are in the log.
func partitionDropped(w *world) {
	w.relay.Signal(syscall.SIGSTOP)
	first, second := w.switches()
	w.filled(second)
	_, err := w.pool.Exec(w.t.Context(), `alter table outbox detach partition `+first)
	w.must(err)
	_, err = w.pool.Exec(w.t.Context(), `drop table `+first)
	w.must(err)
	w.relay.Signal(syscall.SIGCONT)
}

// idle writes a log of others', in this database and in another one: the slot
// must follow, so that PostgreSQL can remove it.
func idle(w *world) {
	w.transact(func(ctx context.Context, b *book) error { return b.write(ctx, outbox.Rows, 10, 100) })
	w.flow(10)
	megabytes := 32
	if long() {
		megabytes = 512
	}
	other, err := pgx.Connect(w.t.Context(), w.postgres.DSN)
	w.must(err)
	defer func() { _ = other.Close(context.Background()) }()
	const (
		create = `create table if not exists foreign_log (filler text); alter table foreign_log alter column filler set storage external`
		fill   = `insert into foreign_log select repeat('x', 8192) from generate_series(1, $1)`
	)
	_, err = other.Exec(w.t.Context(), create)
	w.must(err)
	_, err = w.pool.Exec(w.t.Context(), create)
	w.must(err)
	for range megabytes / 16 {
		_, err := other.Exec(w.t.Context(), fill, 8<<20/8192)
		w.must(err)
		_, err = w.pool.Exec(w.t.Context(), fill, 8<<20/8192)
		w.must(err)
	}
	end := w.logEnd()
	devstacktest.Wait(w.t, "the slot to follow", patience, func() bool { return w.confirmed() >= end })
	_, err = w.pool.Exec(w.t.Context(), `drop table foreign_log`)
	w.must(err)
	// What PostgreSQL keeps begins at restart_lsn, which follows by the
	// running-transactions records, as a checkpoint writes one.
	devstacktest.Wait(w.t, "PostgreSQL to be free to remove the log", patience, func() (free bool) {
		_, err := other.Exec(w.t.Context(), `checkpoint`)
		w.must(err)
		w.must(other.QueryRow(w.t.Context(), `select restart_lsn >= $2::pg_lsn from pg_replication_slots where slot_name = $1`, w.name, end.String()).Scan(&free))
		return free
	})
	_, err = other.Exec(w.t.Context(), `drop table foreign_log`)
	w.must(err)
	w.transact(func(ctx context.Context, b *book) error { return b.write(ctx, outbox.Rows, 10, 100) })
	w.flow(10)
}
