package recovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
	"github.com/seed-048de892/walpost/relay/wal"
)

// look reads what Kafka has, and counts what it lacks.
func (w *work) look(ctx context.Context) error {
	if err := w.table.open(ctx, w.conn, w.state, w.stored); err != nil {
		return err
	}
	k := &known{kafka: w.kafka, source: w.cfg.Relay.Source, letters: w.cfg.Relay.DeadLetterTopic, sequence: w.stored.Sequence, log: w.log}
	topics, err := w.table.topics(ctx, w.conn, w.kafka)
	if err != nil {
		return err
	}
	topics[k.letters] = struct{}{}
	if err := k.find(ctx, topics); err != nil {
		return err
	}
	w.table.since = w.cfg.Since
	if w.table.since.IsZero() && !k.last.IsZero() {
		w.table.since = k.last.Add(-w.cfg.LongestTransaction)
	}
	w.report.Since = w.table.since
	if err := k.load(ctx, w.conn, w.table.since); err != nil {
		return err
	}
	if w.table.doubtful, err = k.doubtful(ctx, w.conn); err != nil {
		return err
	}
	if w.report.Sequence, w.report.holes, err = k.numbers(ctx, w.conn); err != nil {
		return err
	}
	w.report.Holes = int64(len(w.report.holes))
	return w.inSnapshot(ctx, "", func(tx pgx.Tx) error { return w.walk(ctx, tx, 0, nil) })
}

// apply makes the slot and publishes. Until the position is stored, a relay
// refuses to start: the slot is ahead of the old one.
func (w *work) apply(ctx context.Context) error {
	if n := w.report.uncertain(); n > 0 && w.cfg.Uncertain == Refuse {
		return &RefusedError{
			What: fmt.Sprintf("of %d events it can't be known whether Kafka had them before its retention or compaction removed them", n),
			Hint: "if none of them can have been published: --uncertain=publish; if all were: --uncertain=skip; or look at fewer rows: --since",
		}
	}
	if !w.state.Published {
		if err := slot.Publish(ctx, w.conn, w.names, w.state); err != nil {
			return err
		}
	}
	if w.state.Exists {
		if err := slot.Drop(ctx, w.conn, w.names.Slot); err != nil {
			return err
		}
	}
	start, snapshot, closeSnapshot, err := w.createSlot(ctx)
	if err != nil {
		return err
	}
	w.report.Start = start
	next := position.Position{
		SystemID: w.state.SystemID, Slot: w.names.Slot, Generation: w.stored.Generation + 1, End: start,
	}
	w.report.Generation = next.Generation
	err = w.inSnapshot(ctx, snapshot, func(tx pgx.Tx) error {
		if err := closeSnapshot(); err != nil { // tx has it now
			return err
		}
		return w.walk(ctx, tx, next.Generation, w.publish)
	})
	if err != nil {
		return fmt.Errorf("%w (%d events are published; run the same again to go on)", err, w.report.Published)
	}
	next.Sequence, next.At = w.report.Sequence, time.Now().UTC()
	if err := w.kafka.Positions.Save(ctx, next); err != nil {
		return err
	}
	w.report.Applied = true
	return nil
}

func (w *work) createSlot(ctx context.Context) (start lsn.Pos, snapshot string, done func() error, err error) {
	replica, err := wal.Connect(ctx, &w.conn.Config().Config, 0)
	if err != nil {
		return 0, "", nil, err
	}
	done = func() error { return replica.Close(context.WithoutCancel(ctx)) }
	w.log.InfoContext(ctx, "creating the slot; this waits for open transactions", slog.String("slot", w.names.Slot))
	start, snapshot, err = slot.Export(ctx, replica, w.names.Slot, slot.Options{Failover: w.cfg.Relay.Failover})
	if err != nil {
		return 0, "", nil, errors.Join(err, done())
	}
	return start, snapshot, done, nil
}

// inSnapshot runs f in a transaction that sees one state of the table: that of
// an exported snapshot, or, without its name, that of now.
func (w *work) inSnapshot(ctx context.Context, name string, f func(pgx.Tx) error) error {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return pgx.BeginTxFunc(ctx, w.conn, options, func(tx pgx.Tx) error {
		if name != "" {
			if _, err := tx.Exec(ctx, "set transaction snapshot '"+name+"'"); err != nil {
				return fmt.Errorf("take the snapshot of slot %s: %w", w.names.Slot, err)
			}
		}
		return f(tx)
	})
}

// walk goes over what Kafka lacks, in order, counts it anew and gives each
// event to publish, if that is set, and what a fetch has brought to Kafka
// before the next fetch: that bounds memory, and shows that the lock is held.
func (w *work) walk(ctx context.Context, tx pgx.Tx, generation int64, publish func(context.Context, *relay.StoredRow, int64) error) error {
	counts, err := w.table.count(ctx, tx)
	if err != nil {
		return err
	}
	w.report.begin(counts)
	one := func(e *relay.StoredRow) error {
		doubt := w.table.doubtful[topicOf(e.Topic)]
		if !w.report.missing(e, doubt, w.cfg.Uncertain) {
			return nil
		}
		if publish != nil {
			return publish(ctx, e, generation)
		}
		_, err := w.kafka.Record(e, 1, 0, 1) // says now what can't become one
		return err
	}
	return w.table.missing(ctx, tx, func(rows []storedRow) error {
		for i := range rows {
			if !rows[i].packed() {
				if err := one(&rows[i].StoredRow); err != nil {
					return err
				}
				continue
			}
			has, err := w.table.packedKnown(ctx, tx, w.kafka, &rows[i].StoredRow)
			if errors.Is(err, errBuried) {
				w.report.packed(&rows[i].StoredRow, true)
				continue
			}
			if err != nil {
				return err
			}
			err = w.kafka.Events(&rows[i].StoredRow, func(e *relay.StoredRow) error {
				_, known := has[e.ID]
				w.report.packed(e, known)
				if known {
					return nil
				}
				return one(e)
			})
			if err != nil {
				return err
			}
		}
		if publish == nil {
			return nil
		}
		if err := w.kafka.Flush(ctx); err != nil {
			return err
		}
		w.log.InfoContext(ctx, "published", slog.Int64("events", w.report.Published))
		return nil
	})
}

// publish gives the event the next number: first those that were given to
// records of which Kafka has later ones, but not themselves.
func (w *work) publish(ctx context.Context, e *relay.StoredRow, generation int64) error {
	sequence := w.report.next()
	record, err := w.kafka.Record(e, generation, sequence, sequence)
	if err != nil {
		return err
	}
	if err := w.kafka.Produce(ctx, record); err != nil {
		return err
	}
	w.report.Published++
	return nil
}
