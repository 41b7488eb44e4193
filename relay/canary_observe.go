package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// A slotStanding is how the slot stands in PostgreSQL.
type slotStanding struct {
	at       time.Time // when it was read; zero: never
	end      lsn.Pos   // of the log
	recovery bool      // the server is a standby

	state     string // wal_status, or slotMissing
	active    bool   // somebody streams from it
	behind    int64  // bytes of the log that are not confirmed
	retained  int64  // bytes of the log that are kept for it
	safe      *int64 // bytes that may be written before it may be lost; nil: no bound, or lost
	keepLimit *int64 // max_slot_wal_keep_size in bytes; nil: no bound
}

// slotMissing is the state of a slot that is not there.
const slotMissing = "missing"

// slotStates are all that a slot can have.
func slotStates() []string {
	return []string{"reserved", "extended", "unreserved", "lost", slotMissing}
}

// An observer talks to PostgreSQL for the canaries, one call at a time.
type observer interface {
	// look reads how the slot stands, and says whether it connected for that.
	look(ctx context.Context) (s slotStanding, fresh bool, err error)

	// emit commits a canary and gives the end of its message. It is for the
	// connection of the look before.
	emit(ctx context.Context) (lsn.Pos, error)

	close(ctx context.Context)
}

// An observation is the [observer] on a server.
type observation struct {
	cfg  Config
	pg   *pgx.ConnConfig
	conn *pgx.Conn // nil: none
}

func (o *observation) look(ctx context.Context) (s slotStanding, fresh bool, err error) {
	if o.conn == nil || o.conn.IsClosed() {
		if err := o.connect(ctx); err != nil {
			return s, true, err
		}
		fresh = true
	}
	var end string
	err = o.conn.QueryRow(ctx, `
		select now.lsn::text, pg_is_in_recovery(), coalesce(s.wal_status, case when s.slot_name is null then $2 else 'lost' end), coalesce(s.active, false),
			coalesce(now.lsn - s.confirmed_flush_lsn, 0)::bigint, coalesce(now.lsn - s.restart_lsn, 0)::bigint, s.safe_wal_size,
			(select nullif(setting::bigint, -1) * 1024 * 1024 from pg_settings where name = 'max_slot_wal_keep_size')
		from (select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end as lsn) now
		left join pg_replication_slots s on s.slot_name = $1`, o.cfg.Slot, slotMissing,
	).Scan(&end, &s.recovery, &s.state, &s.active, &s.behind, &s.retained, &s.safe, &s.keepLimit)
	if err != nil {
		return s, fresh, fmt.Errorf("look at slot %s: %w", o.cfg.Slot, err)
	}
	s.at = time.Now()
	s.end, err = lsn.Parse(end)
	return s, fresh, err
}

// connect has commits wait for this server's disk only: a canary says nothing
// about standbys, and must not wait for one.
func (o *observation) connect(ctx context.Context) error {
	config := o.pg.Copy()
	config.RuntimeParams["synchronous_commit"] = "local"
	config.RuntimeParams["application_name"] = "walpost relay canary"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	o.conn = conn
	return nil
}

func (o *observation) emit(ctx context.Context) (lsn.Pos, error) {
	var at string
	err := o.conn.QueryRow(ctx, `select pg_logical_emit_message(true, $1, $2::bytea)::text`, CanaryPrefix, []byte(o.cfg.Source)).Scan(&at)
	if err != nil {
		return 0, fmt.Errorf("write a canary: %w", err)
	}
	return lsn.Parse(at)
}

func (o *observation) close(ctx context.Context) {
	if o.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = o.conn.Close(ctx) // a farewell; the server notices without it too
}

// mayNot reports whether err is that the role has not the right.
func mayNot(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "42501"
}
