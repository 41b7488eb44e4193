package status

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/slot"
)

// A server is what PostgreSQL tells.
type server struct {
	end         lsn.Pos
	state       slot.State
	walStatus   string
	retained    int64
	safe        *int64
	application string
	client      string
	flushLag    *float64 // seconds, as the walsender measures
}

func readServer(ctx context.Context, conn *pgx.Conn, name string) (server, error) {
	var s server
	var end, confirmed string
	err := conn.QueryRow(ctx, `
		select pg_current_wal_insert_lsn()::text, (select system_identifier::text from pg_control_system()), current_database(), s.slot_name is not null,
			coalesce(s.confirmed_flush_lsn::text, '0/0'), coalesce(s.active_pid, 0), coalesce(s.wal_status, 'missing'),
			coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), s.restart_lsn), 0)::bigint, s.safe_wal_size,
			coalesce(r.application_name, ''), coalesce(host(r.client_addr) || ':' || r.client_port, ''), extract(epoch from r.flush_lag)::float8
		from (values (1)) one left join pg_replication_slots s on s.slot_name = $1 left join pg_stat_replication r on r.pid = s.active_pid`, name,
	).Scan(&end, &s.state.SystemID, &s.state.Database, &s.state.Exists, &confirmed, &s.state.ActivePID, &s.walStatus, &s.retained, &s.safe, &s.application, &s.client, &s.flushLag)
	if err != nil {
		return s, fmt.Errorf("look at slot %s: %w", name, err)
	}
	if s.walStatus == "lost" {
		s.state.Invalidation = "PostgreSQL has given it up"
	}
	var errEnd, errConfirmed error
	s.end, errEnd = lsn.Parse(end)
	s.state.Confirmed, errConfirmed = lsn.Parse(confirmed)
	return s, errors.Join(errEnd, errConfirmed)
}

// watchEvery is how often the walsender is looked at.
const watchEvery = 25 * time.Millisecond

// watch counts what the walsender of the slot waits for. It works where it
// waits for nothing.
func watch(ctx context.Context, conn *pgx.Conn, name string, over time.Duration) (map[string]int, error) {
	waits := make(map[string]int)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	end := time.NewTimer(over)
	defer end.Stop()
	for {
		var event string
		err := conn.QueryRow(ctx, `select coalesce(a.wait_event, 'CPU') from pg_replication_slots s join pg_stat_activity a on a.pid = s.active_pid where s.slot_name = $1`, name).Scan(&event)
		switch {
		case errors.Is(err, pgx.ErrNoRows): // nobody has the slot
		case err != nil:
			return nil, fmt.Errorf("look at the walsender of slot %s: %w", name, err)
		default:
			waits[event]++
		}
		select {
		case <-tick.C:
		case <-end.C:
			return waits, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
