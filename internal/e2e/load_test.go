package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-048de892/walpost/outbox"
)

// An account is the state that events are about: as a row, and as replayed.
type account struct {
	ID      string  `json:"id"`
	Version int64   `json:"version"`
	Balance int64   `json:"balance"`
	Note    *string `json:"note"`
	Last    struct {
		Writer int64 `json:"writer"`
		Amount int64 `json:"amount"`
	} `json:"last"`
}

const createAccounts = `create table accounts (id text primary key, version bigint not null, balance bigint not null,
	note text, last_writer bigint not null, last_amount bigint not null)`

const readAccounts = `select id, version, balance, note, last_writer, last_amount from accounts`

func scanAccount(row pgx.CollectableRow) (a account, err error) {
	err = row.Scan(&a.ID, &a.Version, &a.Balance, &a.Note, &a.Last.Writer, &a.Last.Amount)
	return a, err
}

// A load is what all writers do together, as far as they are allowed to.
type load struct {
	pool    *pgxpool.Pool
	topics  []string      // an account keeps to one
	allowed chan struct{} // one for each event
}

var errAbort = errors.New("rolled back")

// write makes n events, on accounts that all writers share.
func (l *load) write(t *testing.T, w, n int) {
	random := rand.New(rand.NewPCG(uint64(w), 7))
	for n > 0 {
		count := min(1+random.IntN(5), n)
		abort := random.IntN(5) == 0
		if !abort {
			for range count {
				select {
				case <-l.allowed:
				case <-t.Context().Done():
					return
				}
			}
		}
		err := pgx.BeginFunc(t.Context(), l.pool, func(tx pgx.Tx) error {
			return l.transaction(t.Context(), tx, random, int64(w), count, abort)
		})
		switch {
		case abort && !errors.Is(err, errAbort), !abort && err != nil:
			t.Errorf("writer %d: %v", w, err)
			return
		case !abort:
			n -= count
		}
	}
}

// transaction changes one account or two and writes count events: in a batch,
// by Write, in a savepoint that is released; and others in one that is rolled
// back.
func (l *load) transaction(ctx context.Context, tx pgx.Tx, random *rand.Rand, w int64, count int, abort bool) error {
	numbers := []int{random.IntN(accounts), random.IntN(accounts)}
	slices.Sort(numbers) // locked in one order: no deadlocks
	numbers = slices.Compact(numbers)
	locked := make([]account, len(numbers))
	for i, number := range numbers {
		id := fmt.Sprintf("a%d", number)
		_, err := tx.Exec(ctx, `insert into accounts values ($1, 0, 0, null, 0, 0) on conflict do nothing`, id)
		if err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, readAccounts+` where id = $1 for update`, id) // CollectOneRow gives its error
		if locked[i], err = pgx.CollectOneRow(rows, scanAccount); err != nil {
			return err
		}
	}
	if random.IntN(4) == 0 {
		scratch := locked[0]
		err := pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error {
			return errors.Join(outbox.Write(ctx, savepoint, l.change(&scratch, random, w)), errAbort)
		})
		if !errors.Is(err, errAbort) {
			return err
		}
	}
	var events []outbox.Event
	for range count {
		events = append(events, l.change(&locked[random.IntN(len(locked))], random, w))
	}
	var batch pgx.Batch
	for _, a := range locked {
		batch.Queue(`update accounts set version = $2, balance = $3, note = $4, last_writer = $5, last_amount = $6 where id = $1`,
			a.ID, a.Version, a.Balance, a.Note, a.Last.Writer, a.Last.Amount)
	}
	var err error
	switch random.IntN(3) {
	case 0:
		err = outbox.Queue(ctx, &batch, events...)
	case 1:
		err = outbox.Write(ctx, tx, events...)
	case 2:
		err = pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error { return outbox.Write(ctx, savepoint, events...) })
	}
	err = cmp.Or(err, tx.SendBatch(ctx, &batch).Close())
	if err == nil && abort {
		err = errAbort
	}
	return err
}

// change changes a at random, and gives the event that tells only what has
// changed, in changing layouts.
func (l *load) change(a *account, random *rand.Rand, w int64) outbox.Event {
	a.Version++
	amount := random.Int64N(1000)
	a.Balance += amount
	patch := map[string]any{"version": a.Version, "balance": a.Balance}
	if a.Version == 1 {
		patch["id"] = a.ID
	}
	last := map[string]any{"amount": amount}
	a.Last.Amount = amount
	if a.Last.Writer != w {
		last["writer"], a.Last.Writer = w, w
	} else if a.Version == 1 {
		last["writer"] = w
	}
	patch["last"] = last
	switch random.IntN(4) {
	case 0:
		note := fmt.Sprintf("‹%d› \"quoted\"", amount)
		patch["note"], a.Note = note, &note
	case 1:
		patch["note"], a.Note = nil, nil
	}
	payload, err := json.Marshal(patch)
	if random.IntN(2) == 0 {
		payload, err = json.MarshalIndent(patch, " ", "\t")
	}
	if err != nil {
		panic(err) // numbers and strings always encode
	}
	var number int
	fmt.Sscanf(a.ID, "a%d", &number)
	return outbox.Event{
		Topic: l.topics[number%len(l.topics)], AggregateType: "account", AggregateID: a.ID, AggregateVersion: a.Version,
		Type: "AccountChanged", Payload: payload,
	}
}
