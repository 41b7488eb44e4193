package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
	"github.com/seed-048de892/walpost/relay/wal"
)

// metadataMinAge lets the client look again soon for a topic just made. With
// transactions it bounds too how long the client rests when the coordinator is
// still busy with the last one.
const (
	metadataMinAge              = 250 * time.Millisecond
	metadataMinAgeTransactional = 50 * time.Millisecond
)

// transactionTimeout is when Kafka gives up a transaction of a relay that is
// dead: so long may its readers of committed records be held back. A live
// relay's takes some ten milliseconds, and longer only where brokers fail.
const transactionTimeout = 10 * time.Second

// servers are the outside of a relay at work.
type servers struct {
	cfg Config
	pg  *pgx.ConnConfig
}

func (o *servers) clientOptions() []kgo.Opt {
	return append([]kgo.Opt{kgo.SeedBrokers(o.cfg.Brokers...), kgo.ClientID("walpost-relay")}, o.cfg.Kafka...)
}

// kafka sets what the promises rest on. Records are never given up, so memory
// is bounded by the budget and not by the client.
func (o *servers) kafka(transactional string, t *topics) (producer, positions, *kgo.Client, error) {
	options := o.clientOptions()
	delivery := []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.UnknownTopicRetries(-1), // a topic made a moment ago is not known everywhere
		kgo.StopProducerOnDataLossDetected(),
		kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
		kgo.ProducerBatchMaxBytesFn(t.batchMaxBytes),
		kgo.ProducerLinger(max(o.cfg.Linger, 0)),
		kgo.MaxBufferedRecords(math.MaxInt32),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.WithLogger(refusals{stop: t.refused}),
	}
	if transactional != "" {
		delivery = append(delivery, kgo.TransactionalID(transactional),
			kgo.TransactionTimeout(transactionTimeout), kgo.MetadataMinAge(metadataMinAgeTransactional))
	}
	client, err := kgo.NewClient(append(slices.Clip(options), delivery...)...)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make the Kafka client: %w", err)
	}
	return client, &position.Store{
		Client: client, Options: options,
		Topic: o.cfg.PositionsTopic, Source: o.cfg.Source, Replication: o.cfg.TopicReplication,
	}, client, nil
}

func (o *servers) fence(ctx context.Context, transactional string) error {
	client, err := kgo.NewClient(append(o.clientOptions(), kgo.TransactionalID(transactional),
		kgo.TransactionTimeout(transactionTimeout), kgo.MetadataMinAge(metadataMinAgeTransactional))...)
	if err != nil {
		return fmt.Errorf("make the Kafka client: %w", err)
	}
	defer client.Close()
	if _, _, err := client.ProducerID(ctx); err != nil {
		return fmt.Errorf("fence the producer %s: %w", transactional, err)
	}
	return nil
}

func (o *servers) database(ctx context.Context) (database, error) {
	conn, err := pgx.ConnectConfig(ctx, o.pg)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	return &postgres{cfg: o.cfg, pg: o.pg, conn: conn}, nil
}

// A postgres is a [database] on a server.
type postgres struct {
	cfg    Config
	pg     *pgx.ConnConfig
	conn   *pgx.Conn
	sender int32 // process id of the stream's walsender
}

// lockEvery is how often a standby asks whether it is its turn.
const lockEvery = 250 * time.Millisecond

// tryLock takes the lock of a slot for this session, if nobody has it.
const tryLock = "select pg_try_advisory_lock(hashtextextended('walpost relay ' || $1, 0))"

// lock asks again and again: a statement that waits for the lock in the server
// would hold a snapshot, and with it back vacuum, for as long as the other
// relay works.
func (d *postgres) lock(ctx context.Context) error {
	ticker := time.NewTicker(lockEvery)
	defer ticker.Stop()
	for {
		var taken bool
		err := d.conn.QueryRow(ctx, tryLock, d.cfg.Slot).Scan(&taken)
		if err != nil {
			return fmt.Errorf("wait for the lock of slot %s: %w", d.cfg.Slot, err)
		}
		if taken {
			return d.lease(ctx)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// lease has the server end this connection, and with it the lock, when nothing
// has been asked over it for SenderTimeout, just as it then ends the stream: a
// relay that is frozen or cut off must not keep the others waiting.
func (d *postgres) lease(ctx context.Context) error {
	idle := d.cfg.SenderTimeout.Milliseconds()
	seconds := max(1, idle/2000) // for TCP, while the lease does not run
	_, err := d.conn.Exec(ctx, `select set_config('idle_session_timeout', $1, false), set_config('tcp_keepalives_idle', $2, false),
		set_config('tcp_keepalives_interval', '1', false), set_config('tcp_keepalives_count', $2, false)`, fmt.Sprint(idle), fmt.Sprint(seconds))
	if err != nil {
		return fmt.Errorf("limit the lock of slot %s: %w", d.cfg.Slot, err)
	}
	return nil
}

func (d *postgres) holds(ctx context.Context) error {
	var active bool
	err := d.conn.QueryRow(ctx, "select exists (select from pg_replication_slots where slot_name = $1 and active_pid = $2)",
		d.cfg.Slot, d.sender).Scan(&active)
	if err != nil {
		return fmt.Errorf("ask for the lock of slot %s: %w", d.cfg.Slot, err)
	}
	if !active {
		return fmt.Errorf("slot %s is no longer this relay's: PostgreSQL has ended its stream", d.cfg.Slot)
	}
	return nil
}

func (d *postgres) inspect(ctx context.Context) (slot.State, error) {
	return slot.Inspect(ctx, d.conn, d.cfg.names())
}

func (d *postgres) publish(ctx context.Context, s slot.State) error {
	return slot.Publish(ctx, d.conn, d.cfg.names(), s)
}

func (d *postgres) drop(ctx context.Context) error { return slot.Drop(ctx, d.conn, d.cfg.Slot) }

// create waits for the transactions that are open, for however long these take;
// meanwhile the lease does not run.
func (d *postgres) create(ctx context.Context, s slot.State) (slot.Created, error) {
	if _, err := d.conn.Exec(ctx, "set idle_session_timeout = 0"); err != nil {
		return slot.Created{}, fmt.Errorf("keep the lock of slot %s: %w", d.cfg.Slot, err)
	}
	replica, err := wal.Connect(ctx, &d.pg.Config, d.cfg.SenderTimeout)
	if err != nil {
		return slot.Created{}, err
	}
	d.cfg.Log.InfoContext(ctx, "creating the slot; this waits for open transactions", slog.String("slot", d.cfg.Slot))
	created, err := slot.Create(ctx, replica, d.conn, d.cfg.names(), s, slot.Options{Failover: d.cfg.Failover})
	if err = errors.Join(err, replica.Close(ctx)); err != nil {
		return created, err
	}
	return created, d.lease(ctx)
}

func (d *postgres) stream(ctx context.Context, start lsn.Pos) (stream, error) {
	s, err := wal.Start(ctx, &d.pg.Config, wal.Options{
		Slot: d.cfg.Slot, Publication: d.cfg.Publication, Messages: d.cfg.Messages == ReadMessages, Start: start, SenderTimeout: d.cfg.SenderTimeout,
	})
	if err != nil {
		return nil, err
	}
	// Not the process id that the connection was told: a pooler in between
	// tells one of its own.
	err = d.conn.QueryRow(ctx, "select coalesce(active_pid, 0) from pg_replication_slots where slot_name = $1", d.cfg.Slot).Scan(&d.sender)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find the walsender of slot %s: %w", d.cfg.Slot, err), s.Close())
	}
	return s, nil
}

func (d *postgres) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	return d.conn.Close(ctx)
}

// farewell bounds the end of a connection that may lead nowhere.
const farewell = 2 * time.Second
