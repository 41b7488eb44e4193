package check

import (
	"context"
	"fmt"
	"strings"

	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/lsn"
)

// found is a slot as PostgreSQL shows it.
type found struct {
	exists            bool
	plugin, database  string
	status, reason    string
	safe              *int64
	failover, synched bool
	application       string
}

func (l *look) readSlot(ctx context.Context) error {
	extra := "'', false, false"
	switch {
	case l.major >= 17:
		extra = "coalesce(s.invalidation_reason, ''), s.failover, s.synced"
	case l.major == 16:
		extra = "case when s.conflicting then 'conflict with recovery' else '' end, false, false"
	}
	var confirmed string
	f := &l.found
	err := l.conn.QueryRow(ctx, `select coalesce(s.plugin::text, ''), coalesce(s.database::text, ''), coalesce(s.confirmed_flush_lsn::text, '0/0'), coalesce(s.active_pid, 0),
			coalesce(s.wal_status, ''), s.safe_wal_size, coalesce(a.application_name, ''), `+extra+`
		from pg_replication_slots s left join pg_stat_activity a on a.pid = s.active_pid where s.slot_name = $1`, l.names.Slot,
	).Scan(&f.plugin, &f.database, &confirmed, &l.state.ActivePID, &f.status, &f.safe, &f.application, &f.reason, &f.failover, &f.synched)
	if noRows(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at slot %s: %w", l.names.Slot, err)
	}
	f.exists, l.state.Exists = true, true
	if f.status == "lost" {
		l.state.Invalidation = "PostgreSQL has given it up"
		if f.reason != "" {
			l.state.Invalidation += " (" + f.reason + ")"
		}
	}
	l.state.Confirmed, err = lsn.Parse(confirmed)
	return err
}

// slot looks at the slot, and compares it with the stored position.
func (l *look) slot() {
	name, f := l.names.Slot, &l.found
	foreign := f.exists && (f.plugin != "pgoutput" || f.database != l.state.Database)
	switch {
	case foreign:
		l.add("slot", name, Error, fmt.Sprintf("it belongs to plugin %q and database %q, not to pgoutput and %q", f.plugin, f.database, l.state.Database), "--slot another_name")
		return
	case !f.exists && l.positions && l.stored == nil:
		l.add("slot", name, OK, "there is none; the first start makes it", "")
		return
	case f.exists:
		who := "nobody reads it"
		if l.state.ActivePID != 0 {
			who = fmt.Sprintf("process %d, %q, reads it", l.state.ActivePID, f.application)
		}
		l.add("slot", "in use", OK, who, "")
	}
	if f.exists && f.safe != nil && f.status != "lost" {
		l.unless(f.status == "reserved", "slot", "kept log", Warning, fmt.Sprintf("%s, %d MB may be written before the slot may be lost", f.status, *f.safe>>20),
			"start the relay, or raise max_slot_wal_keep_size")
	}
	if !l.positions {
		return // said already
	}
	if l.stored == nil {
		l.add("slot", name, Broken, "it exists, but Kafka holds no position for source "+l.cfg.Relay.Source+": which of its events were published is unknown",
			"if --source or --positions-topic has changed, change it back; if nothing was ever published: select pg_drop_replication_slot('"+name+"')")
		return
	}
	if l.stored.Creating && l.stored.SystemID == l.state.SystemID && l.stored.Slot == name {
		l.add("slot", name, OK, "a start was cut off while it made the slot; the next one makes it anew", "")
		return
	}
	if lost := relay.Lost(*l.stored, l.state, l.names); lost != "" {
		next := "relay recover"
		if l.stored.Slot != name {
			next = "--slot " + l.stored.Slot
		}
		l.add("slot", name, Broken, lost, next)
		return
	}
	l.add("slot", name, OK, fmt.Sprintf("at %v, Kafka holds its events up to %v, sequence %d", l.state.Confirmed, l.stored.End, l.stored.Sequence), "")
}

// failover looks at what a slot needs to outlive its server.
func (l *look) failover(ctx context.Context) error {
	if l.major < 17 {
		l.unless(!l.cfg.Relay.Failover, "failover", "slot", Error, fmt.Sprintf("PostgreSQL %d has no slots that outlive a failover", l.major), "leave --failover out; after a failover: relay recover")
		return nil
	}
	var standbySlots, missing, sync, feedback, primarySlot string
	err := l.conn.QueryRow(ctx, `select current_setting('synchronized_standby_slots'),
			(select coalesce(string_agg(trim(n), ', ' order by n), '') from unnest(string_to_array(current_setting('synchronized_standby_slots'), ',')) n
				where not exists (select from pg_replication_slots s where s.slot_name = trim(n) and s.slot_type = 'physical' and s.active)),
			current_setting('sync_replication_slots'), current_setting('hot_standby_feedback'), current_setting('primary_slot_name')`,
	).Scan(&standbySlots, &missing, &sync, &feedback, &primarySlot)
	if err != nil {
		return fmt.Errorf("look at the settings for failover: %w", err)
	}
	if l.standby {
		l.unless(sync == "on", "failover", "sync_replication_slots", Error, sync, "alter system set sync_replication_slots = on; and select pg_reload_conf(); the dbname must be in primary_conninfo")
		l.unless(feedback == "on", "failover", "hot_standby_feedback", Error, feedback, "alter system set hot_standby_feedback = on; and select pg_reload_conf()")
		l.unless(primarySlot != "", "failover", "primary_slot_name", Error, fmt.Sprintf("%q", primarySlot), "give the standby a physical slot: alter system set primary_slot_name = '…'")
		return nil
	}
	if l.found.exists {
		wants := l.cfg.Relay.Failover
		l.unless(l.found.failover || !wants, "failover", "slot", Warning, fmt.Sprintf("failover is %t", l.found.failover),
			fmt.Sprintf(`stop the relay, and: psql "dbname=%s replication=database" -c 'alter_replication_slot %s (failover true)'`, l.state.Database, l.names.Slot))
	}
	if !l.found.failover && !l.cfg.Relay.Failover {
		return nil
	}
	l.unless(standbySlots != "", "failover", "synchronized_standby_slots", Warning, fmt.Sprintf("%q", standbySlots),
		"Kafka may have events that a standby has not, and loses: alter system set synchronized_standby_slots = 'its physical slot'; and select pg_reload_conf()")
	if standbySlots != "" {
		l.unless(missing == "", "failover", "standbys", Error, "not connected: "+strings.TrimSpace(missing)+" (of "+standbySlots+")", "the relay waits for them: start those standbys, or take their slots out of synchronized_standby_slots")
	}
	l.add("failover", "standby", OK, "sync_replication_slots and hot_standby_feedback are the standby's: relay check --postgres with its address", "")
	return nil
}
