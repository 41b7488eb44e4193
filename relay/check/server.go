package check

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/relay/wal"
)

// server looks at the settings of the server that decoding rests on.
func (l *look) server(ctx context.Context) error {
	var version, walLevel, keep, memory string
	var number, slots, maxSlots, senders, maxSenders int
	var slotThere bool
	var keepMB, memoryKB int64
	err := l.conn.QueryRow(ctx, `select current_setting('server_version'), current_setting('server_version_num')::int, pg_is_in_recovery(),
			(select system_identifier::text from pg_control_system()), current_database(), current_setting('wal_level'),
			(select count(*) from pg_replication_slots), current_setting('max_replication_slots')::int,
			exists (select from pg_replication_slots where slot_name = $1),
			(select count(*) from pg_stat_get_wal_senders()), current_setting('max_wal_senders')::int,
			current_setting('max_slot_wal_keep_size'), (select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size'),
			current_setting('logical_decoding_work_mem'), (select setting::bigint from pg_settings where name = 'logical_decoding_work_mem')`, l.names.Slot,
	).Scan(&version, &number, &l.standby, &l.state.SystemID, &l.state.Database, &walLevel, &slots, &maxSlots, &slotThere, &senders, &maxSenders, &keep, &keepMB, &memory, &memoryKB)
	if err != nil {
		return fmt.Errorf("look at the server: %w", err)
	}
	l.major = number / 10000
	l.unless(l.major >= 14, "server", "version", Error, "PostgreSQL "+version, "PostgreSQL 14 or later is needed")
	if l.standby {
		l.add("server", "primary", Error, "this is a standby", "connect to the primary; here only the settings for failover are worth a look")
	}
	l.unless(walLevel == "logical", "server", "wal_level", Error, walLevel, "alter system set wal_level = logical; and restart PostgreSQL")
	l.unless(slotThere || slots < maxSlots, "server", "max_replication_slots", Error, fmt.Sprintf("%d of %d in use", slots, maxSlots),
		fmt.Sprintf("alter system set max_replication_slots = %d; and restart PostgreSQL; or drop a slot that nobody needs: select * from pg_replication_slots", maxSlots+5))
	l.unless(senders < maxSenders, "server", "max_wal_senders", Error, fmt.Sprintf("%d of %d in use", senders, maxSenders),
		fmt.Sprintf("alter system set max_wal_senders = %d; and restart PostgreSQL", maxSenders+5))
	l.unless(keepMB >= 0, "server", "max_slot_wal_keep_size", Warning, keep,
		"a relay that is down fills the disk; alter system set max_slot_wal_keep_size = '100GB'; or what the disk can spare, and select pg_reload_conf()")
	l.unless(memoryKB >= 64<<10, "server", "logical_decoding_work_mem", Warning, memory,
		"transactions beyond it go through the server's disk; alter system set logical_decoding_work_mem = '64MB'; and select pg_reload_conf()")
	l.add("server", "wal_sender_timeout", OK, fmt.Sprintf("%v for the relay's own connection (--sender-timeout)", l.cfg.Relay.SenderTimeout), "")
	return nil
}

// role looks at what the role may do; it opens a replication connection.
func (l *look) role(ctx context.Context) error {
	var role string
	var super, replication bool
	err := l.conn.QueryRow(ctx, `select rolname, rolsuper, rolreplication from pg_roles where rolname = current_user`).Scan(&role, &super, &replication)
	if err != nil {
		return fmt.Errorf("look at the role: %w", err)
	}
	l.unless(replication || super, "role", "REPLICATION", Error, "role "+role, "alter role "+pgx.Identifier{role}.Sanitize()+" replication")
	if replication || super {
		replica, err := wal.Connect(ctx, &l.conn.Config().Config, l.cfg.Relay.SenderTimeout)
		what := "opened"
		if err != nil {
			what = err.Error()
		} else {
			_ = replica.Close(ctx) // it has done what it was for
		}
		l.unless(err == nil, "role", "replication connection", Error, what, "see pg_hba.conf: the line must name the database, not replication; select * from pg_hba_file_rules")
	}
	return nil
}
