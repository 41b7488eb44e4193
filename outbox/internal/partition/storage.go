package partition

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// storageOf gives the clauses that make a new table be stored as its elder is:
// the default partition, else the latest one. A partitioned table itself has
// no storage parameters that could be handed down.
func storageOf(ctx context.Context, tx pgx.Tx, list []Partition) (string, error) {
	list = slices.DeleteFunc(slices.Clone(list), func(p Partition) bool { return p.Foreign })
	if len(list) == 0 {
		return "", nil
	}
	var options, toast []string
	var space string
	err := tx.QueryRow(ctx, `
		select coalesce(c.reloptions, '{}'), coalesce(t.reloptions, '{}'), coalesce(s.spcname, '')
		from pg_class c left join pg_class t on t.oid = c.reltoastrelid left join pg_tablespace s on s.oid = c.reltablespace
		where c.oid = $1`, list[len(list)-1].OID,
	).Scan(&options, &toast, &space)
	if err != nil {
		return "", fmt.Errorf("read the storage parameters of %s: %w", list[len(list)-1].Identifier().Sanitize(), err)
	}
	clauses := ""
	if all := append(parameters("", options), parameters("toast.", toast)...); len(all) > 0 {
		clauses = " with (" + strings.Join(all, ", ") + ")"
	}
	if space != "" {
		clauses += " tablespace " + pgx.Identifier{space}.Sanitize()
	}
	return clauses, nil
}

// parameters turns name=value, as the catalog has it, into a clause's items.
func parameters(prefix string, options []string) []string {
	items := make([]string, len(options))
	for i, option := range options {
		name, value, _ := strings.Cut(option, "=")
		items[i] = prefix + pgx.Identifier{name}.Sanitize() + " = '" + strings.ReplaceAll(value, "'", "''") + "'"
	}
	return items
}
