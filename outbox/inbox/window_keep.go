package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kgo"

	partitions "github.com/seed-048de892/walpost/outbox/internal/partition"
)

// Keep makes one pass: partitions that are missing are made, from the window's
// beginning to [WindowConfig.Ahead]; those beyond the window whose every event
// its group has passed are dropped; and so are such rows of the default
// partition. It gives what it did, also beside an error.
func (w *Window) Keep(ctx context.Context) (Kept, error) {
	var kept Kept
	var now time.Time
	if err := w.cfg.Pool.QueryRow(ctx, "select now()").Scan(&now); err != nil {
		return kept, fmt.Errorf("keep the inbox's window: %w", err)
	}
	old := now.Add(-w.cfg.Window)
	made, err := w.set.Make(ctx, w.cfg.Pool, old, now.Add(w.cfg.Ahead))
	for _, m := range made {
		kept.Made = append(kept.Made, m.Name)
		kept.Moved += m.Moved
	}
	if err := errors.Join(err, w.shed(ctx, old, &kept)); err != nil {
		return kept, fmt.Errorf("keep the inbox's window: %w", err)
	}
	return kept, nil
}

// shed drops and deletes what is older than old and passed.
func (w *Window) shed(ctx context.Context, old time.Time, kept *Kept) error {
	list, err := w.set.List(ctx, w.cfg.Pool)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(w.cfg.Brokers...)}, w.cfg.KafkaOptions...)...)
	if err != nil {
		return err
	}
	defer client.Close()
	var problems []error
	for _, p := range list {
		switch {
		case p.Default:
			n, err := w.deletePassed(ctx, client, p, old)
			kept.Deleted += n
			problems = append(problems, err)
		case p.Pending, p.Foreign, p.To.IsZero(), p.To.After(old):
		default:
			reason, err := w.drop(ctx, client, p, old)
			switch {
			case err != nil:
				problems = append(problems, err)
			case reason != "":
				kept.Held = append(kept.Held, Held{Partition: p.Name, Reason: reason})
			default:
				kept.Dropped = append(kept.Dropped, p.Name)
			}
		}
	}
	return errors.Join(problems...)
}

// drop drops p, or gives the reason why it must stay.
func (w *Window) drop(ctx context.Context, client *kgo.Client, p partitions.Partition, old time.Time) (reason string, err error) {
	// First a look that is in nobody's way. The offsets are read after the
	// rows and only grow, so that they hold for the second look too.
	rows, err := newest(ctx, w.cfg.Pool, p)
	if err != nil {
		return "", err
	}
	offsets := fetchOffsets(ctx, client, groupsOf(rows))
	if reason = stays(rows, offsets, old); reason != "" {
		return reason, nil
	}
	err = pgx.BeginFunc(ctx, w.cfg.Pool, func(tx pgx.Tx) error {
		// Only handlers of events as old as the partition wait here. It is
		// taken before the table's lock, which everybody waits for, and would
		// be held during the second look.
		if _, err := tx.Exec(ctx, "set local lock_timeout = '1s'"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "lock table only "+p.Identifier().Sanitize()+" in share mode"); err != nil {
			return err
		}
		if rows, err = newest(ctx, tx, p); err != nil {
			return err
		}
		if reason = stays(rows, offsets, old); reason != "" {
			return nil
		}
		return w.detachAndDrop(ctx, tx, p)
	})
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "55P03" { // lock_not_available
		return "a transaction that wrote into the table is still open", nil
	}
	if err != nil {
		return "", fmt.Errorf("drop partition %s: %w", p.Name, err)
	}
	return reason, nil
}

func (w *Window) detachAndDrop(ctx context.Context, tx pgx.Tx, p partitions.Partition) error {
	done, err := w.set.Detach(ctx, tx, p, func(context.Context, pgx.Tx) (string, error) { return "", nil })
	if err != nil || !done {
		return err
	}
	detached, err := w.set.Detached(ctx, tx)
	if err != nil {
		return err
	}
	for _, d := range detached {
		if d.OID == p.OID {
			_, err := w.set.Drop(ctx, tx, d, func(context.Context, pgx.Tx) error { return nil })
			return err
		}
	}
	return fmt.Errorf("table %s is gone", p.Name)
}

// A newestRow is the highest offset and the last handling of a groupPartition.
type newestRow struct {
	groupPartition
	offset  int64
	handled time.Time
}

// rowsQuerier is a pool or a transaction.
type rowsQuerier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func newest(ctx context.Context, db rowsQuerier, p partitions.Partition) ([]newestRow, error) {
	rows, err := db.Query(ctx, `select consumer_group, topic, partition, max("offset"), max(handled_at) from only `+
		p.Identifier().Sanitize()+` group by consumer_group, topic, partition`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r newestRow, err error) {
		return r, row.Scan(&r.group, &r.topic, &r.partition, &r.offset, &r.handled)
	})
}

func groupsOf(rows []newestRow) map[string]bool {
	groups := make(map[string]bool)
	for i := range rows {
		groups[rows[i].group] = true
	}
	return groups
}

// stays says why rows must stay, and gives "" where nobody needs them.
func stays(rows []newestRow, o *offsets, old time.Time) string {
	for i := range rows {
		r := &rows[i]
		if !r.handled.Before(old) {
			return fmt.Sprintf("group %s handled an event of it at %s", r.group, r.handled.UTC().Format(time.RFC3339))
		}
		if why := o.why(r.groupPartition, r.offset); why != "" {
			return why
		}
	}
	return ""
}

// deleteBatch keeps a delete short.
const deleteBatch = 5000

// deletePassed deletes the rows of the default partition that were handled
// before old and whose group has passed them. Events whose time is unknown or
// wrong stay here, so the event's time says nothing.
func (w *Window) deletePassed(ctx context.Context, client *kgo.Client, p partitions.Partition, old time.Time) (deleted int64, err error) {
	name := p.Identifier().Sanitize()
	rows, err := newest(ctx, w.cfg.Pool, p)
	if err != nil {
		return 0, err
	}
	found := fetchOffsets(ctx, client, groupsOf(rows))
	var groups, topics []string
	var numbers []int32
	var committed []int64
	for place, offset := range found.committed {
		groups, topics = append(groups, place.group), append(topics, place.topic)
		numbers, committed = append(numbers, place.partition), append(committed, offset)
	}
	for {
		tag, err := w.cfg.Pool.Exec(ctx, `delete from only `+name+` where ctid = any(array(select d.ctid from only `+name+` d`+
			` join unnest($1::text[], $2::text[], $3::integer[], $4::bigint[]) as c (consumer_group, topic, partition, committed)`+
			` using (consumer_group, topic, partition) where d."offset" < c.committed and d.handled_at < $5 limit $6))`,
			groups, topics, numbers, committed, old, deleteBatch)
		if err != nil {
			return deleted, fmt.Errorf("delete from %s: %w", p.Name, err)
		}
		deleted += tag.RowsAffected()
		if tag.RowsAffected() < deleteBatch {
			return deleted, nil
		}
	}
}
