package retention

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A position is a place in the write-ahead log of one cluster.
type position struct {
	system string // identifier of the cluster: in another one the LSN means nothing
	lsn    uint64
}

func (p position) String() string {
	return fmt.Sprintf("every slot must pass %X/%X of system %s before it is dropped", p.lsn>>32, uint32(p.lsn), p.system)
}

// parseNote reads what String gave.
func parseNote(note string) (position, error) {
	rest, ok1 := strings.CutPrefix(note, "every slot must pass ")
	at, rest, ok2 := strings.Cut(rest, " of system ")
	system, tail, ok3 := strings.Cut(rest, " ")
	lsn, err := parseLSN(at)
	if !ok1 || !ok2 || !ok3 || err != nil || system == "" || tail != "before it is dropped" {
		return position{}, fmt.Errorf("its comment %q does not say which position must be passed; see whether its rows have been published, and drop it by hand", note)
	}
	return position{system: system, lsn: lsn}, nil
}

func parseLSN(s string) (uint64, error) {
	high, low, ok := strings.Cut(s, "/")
	h, err1 := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("lsn %q: want two hex numbers separated by a slash", s)
	}
	return h<<32 | l, nil
}

// notePosition gives the end of the write-ahead log. It is called when every
// transaction that has written into the partition has ended: their commits lie
// before it. It is the end of what was inserted into the log, not of what was
// written out of it: with synchronous_commit = off a commit may be between.
func notePosition(ctx context.Context, tx pgx.Tx) (string, error) {
	var p position
	var at string
	err := tx.QueryRow(ctx, `select pg_current_wal_insert_lsn()::text, system_identifier::text from pg_control_system()`).Scan(&at, &p.system)
	if err != nil {
		return "", fmt.Errorf("ask for the end of the write-ahead log: %w", err)
	}
	p.lsn, err = parseLSN(at)
	return p.String(), err
}
