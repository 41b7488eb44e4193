package check

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// columns are those that the relay reads, and the types that it reads them in.
func columns() map[string][]string {
	text := []string{"text", "varchar"}
	return map[string][]string{
		"id": {"uuid"}, "topic": text, "aggregate_type": text, "aggregate_id": text, "aggregate_version": {"int8"}, "type": text,
		"payload": {"bytea", "text", "json", "jsonb"}, "headers": {"jsonb", "json"}, "created_at": {"timestamptz"},
	}
}

// sample is how many rows are looked at for topics. They are read in the order
// in which they lie, so the table is not read as a whole.
const sample = 10_000

// table looks at the outbox table.
func (l *look) table(ctx context.Context) error {
	name := pgx.Identifier(strings.SplitN(l.names.Table, ".", 2)).Sanitize()
	var partitioned, hasDefault, reads bool
	err := l.conn.QueryRow(ctx, `select c.oid, n.nspname, c.relname, c.relkind = 'p',
			exists (select from pg_partitioned_table p where p.partrelid = c.oid and p.partdefid <> 0),
			has_table_privilege(c.oid, 'select')
		from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass($1)`, name,
	).Scan(&l.state.TableOID, &l.state.Namespace, &l.state.Table, &partitioned, &hasDefault, &reads)
	if noRows(err) {
		l.add("table", l.names.Table, Error, "there is none in database "+l.state.Database, `goose -dir migrations/… postgres "$DSN" up; or --table schema.outbox`)
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at table %s: %w", l.names.Table, err)
	}
	full := pgx.Identifier{l.state.Namespace, l.state.Table}.Sanitize()
	rows, err := l.conn.Query(ctx, `select a.attname::text, t.typname::text from pg_attribute a join pg_type t on t.oid = a.atttypid
		where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped`, l.state.TableOID)
	if err != nil {
		return fmt.Errorf("look at the columns of %s: %w", full, err)
	}
	types := make(map[string]string)
	var column, typ string
	if _, err := pgx.ForEachRow(rows, []any{&column, &typ}, func() error { types[column] = typ; return nil }); err != nil {
		return fmt.Errorf("look at the columns of %s: %w", full, err)
	}
	var wrong []string
	for column, want := range columns() {
		switch typ, ok := types[column]; {
		case !ok:
			wrong = append(wrong, column+" is missing")
		case !slices.Contains(want, typ):
			wrong = append(wrong, fmt.Sprintf("%s is %s, not %s", column, typ, strings.Join(want, " or ")))
		}
	}
	slices.Sort(wrong)
	what := fmt.Sprintf("%s, %d columns as the relay reads them", full, len(columns()))
	if len(wrong) > 0 {
		what = full + ": " + strings.Join(wrong, ", ")
	}
	l.unless(len(wrong) == 0, "table", "columns", Error, what, "compare it with the migration in outbox/schema")
	l.unless(reads, "table", "select", l.firstOnly(), l.may(reads, "read the table"), "grant select on "+full+" to …; as its owner. The first start and relay recover need it")
	if partitioned {
		l.unless(hasDefault, "table", "default partition", Warning, l.there(hasDefault),
			"a write for which no partition was made fails: create table outbox_default partition of "+full+" default with (toast_tuple_target = 8160)")
	}
	if err := l.toast(ctx); err != nil {
		return err
	}
	if reads && len(wrong) == 0 {
		return l.sample(ctx, full)
	}
	return nil
}

// firstOnly is how bad it is that the table can't be read: what is there
// already does without.
func (l *look) firstOnly() Level {
	if l.found.exists {
		return Warning
	}
	return Error
}

func (l *look) may(does bool, what string) string {
	if does {
		return "the role may " + what
	}
	return "the role may not " + what
}

func (l *look) there(is bool) string {
	if is {
		return "there is one"
	}
	return "there is none"
}

func (l *look) toast(ctx context.Context) error {
	rows, err := l.conn.Query(ctx, `select c.oid::regclass::text from pg_partition_tree($1) p join pg_class c on c.oid = p.relid
		where p.isleaf and c.relkind = 'r' and not coalesce(c.reloptions @> '{toast_tuple_target=8160}', false) order by 1`, l.state.TableOID)
	if err != nil {
		return fmt.Errorf("look at the partitions: %w", err)
	}
	without, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look at the partitions: %w", err)
	}
	what, next := "8160 wherever rows are", ""
	if len(without) > 0 {
		what = fmt.Sprintf("not 8160 in %d tables, %s the first", len(without), without[0])
		next = "packed rows over 2 kB cost the walsender twice as much: alter table " + without[0] + " set (toast_tuple_target = 8160)"
	}
	l.unless(len(without) == 0, "table", "toast_tuple_target", Warning, what, next)
	return nil
}

// sample finds topics that events are written to.
func (l *look) sample(ctx context.Context, full string) error {
	rows, err := l.conn.Query(ctx, fmt.Sprintf(`select distinct topic from (select topic from %s limit %d) r where topic <> ''`, full, sample))
	if err != nil {
		return fmt.Errorf("look for topics: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for topics: %w", err)
	}
	set := make(map[string]struct{})
	for _, topic := range slices.Concat(found, l.cfg.Topics) {
		set[topic] = struct{}{}
	}
	l.topics = slices.Sorted(maps.Keys(set))
	return nil
}

// publication looks at what the slot's stream is made of. PostgreSQL 18 says
// nothing where it is missing, and streams nothing.
func (l *look) publication(ctx context.Context) error {
	if l.state.TableOID == 0 {
		return nil
	}
	name := l.names.Publication
	full := pgx.Identifier{l.state.Namespace, l.state.Table}.Sanitize()
	create := fmt.Sprintf("create publication %s for table %s with (publish = 'insert', publish_via_partition_root = true)", pgx.Identifier{name}.Sanitize(), full)
	extra := "false, false" // a row filter, a column list: since PostgreSQL 15
	if l.major >= 15 {
		extra = "coalesce(bool_or(r.prqual is not null), false), coalesce(bool_or(r.prattrs is not null), false)"
	}
	var inserts, viaRoot, has, filter, list bool
	err := l.conn.QueryRow(ctx, `select p.pubinsert, p.pubviaroot, p.puballtables or count(r) > 0, `+extra+`
		from pg_publication p left join pg_publication_rel r on r.prpubid = p.oid and r.prrelid = $2
		where p.pubname = $1 group by p.oid, p.pubinsert, p.pubviaroot, p.puballtables`, name, l.state.TableOID,
	).Scan(&inserts, &viaRoot, &has, &filter, &list)
	if noRows(err) {
		return l.noPublication(ctx, create)
	}
	if err != nil {
		return fmt.Errorf("look at publication %s: %w", name, err)
	}
	l.state.Published = inserts && viaRoot && has
	var wrong []string
	for problem, is := range map[string]bool{
		"it does not publish inserts": !inserts, "it does not publish by the root (publish_via_partition_root)": !viaRoot, "it lacks " + full: !has,
		"it has a row filter: events are left out": filter, "it has a column list": list,
	} {
		if is {
			wrong = append(wrong, problem)
		}
	}
	slices.Sort(wrong)
	what := "publishes the inserts of " + full + " by its root"
	if len(wrong) > 0 {
		what = strings.Join(wrong, ", ")
	}
	l.unless(len(wrong) == 0, "publication", name, Error, what, "give the relay a publication of its own, --publication another_name: "+strings.Replace(create, pgx.Identifier{name}.Sanitize(), "another_name", 1))
	return nil
}

func (l *look) noPublication(ctx context.Context, create string) error {
	var slotThere, owns bool
	err := l.conn.QueryRow(ctx, `select exists (select from pg_replication_slots where slot_name = $1),
			pg_has_role(relowner, 'usage') and has_database_privilege(current_database(), 'create') from pg_class where oid = $2`,
		l.names.Slot, l.state.TableOID).Scan(&slotThere, &owns)
	if err != nil {
		return fmt.Errorf("look for slot %s: %w", l.names.Slot, err)
	}
	switch {
	case slotThere:
		l.add("publication", l.names.Publication, Broken, "there is none, and the slot delivers nothing that committed before a new one", create+"; then, with the relay stopped: select pg_drop_replication_slot('"+l.names.Slot+"'); relay recover")
	case owns:
		l.add("publication", l.names.Publication, OK, "there is none; the first start makes it", "")
	default:
		l.add("publication", l.names.Publication, Error, "there is none, and the role may not make it", "as the table's owner: "+create)
	}
	return nil
}
