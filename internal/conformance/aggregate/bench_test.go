package aggregate_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
)

// BenchmarkSave compares Save on a bare pool with what it replaces: a
// transaction of an update and a Write.
func BenchmarkSave(b *testing.B) {
	w := newWorld(b)
	def := define(b, outbox.Writer{})
	root := def.New("1")
	deposit := func() {
		if err := aggregate.Record(root, deposited{Cents: 1}); err != nil {
			b.Fatal(err)
		}
	}
	deposit()
	if err := ways["pool"](b.Context(), w.db, root); err != nil {
		b.Fatal(err)
	}
	for name, save := range map[string]way{"pool": ways["pool"], "transaction": ways["transaction"]} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				deposit()
				if err := save(b.Context(), w.db, root); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("update-and-write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			deposit()
			sql, args := statement(root)
			err := pgx.BeginFunc(b.Context(), w.db, func(tx pgx.Tx) error {
				if _, err := tx.Exec(b.Context(), sql, args...); err != nil {
					return err
				}
				return outbox.Write(b.Context(), tx, root.Pending()...)
			})
			if err != nil {
				b.Fatal(err)
			}
			root = def.Load(root.ID(), root.Version(), root.State())
		}
	})
}
