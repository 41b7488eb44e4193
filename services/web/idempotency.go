package web

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Key is the Idempotency-Key of one request: the answer to the first request
// with it is kept in the table idempotency_keys, in the transaction of its
// effect, and given again until it expires. The zero Key keeps nothing.
type Key struct {
	operation, key string
	request        [sha256.Size]byte
	ttl            time.Duration
}

// NewKey makes the key of a request to operation from the header's value.
// Request is what must be the same when it comes again. Only a hash of it is
// kept, which for a secret that can be guessed is not enough: leave passwords
// out of it. An empty header gives the zero Key.
func NewKey(operation, header string, request any, ttl time.Duration) (Key, error) {
	if header == "" {
		return Key{}, nil
	}
	if len(header) > 255 || !printable(header) {
		return Key{}, &Problem{
			Status: http.StatusBadRequest, Message: "Malformed Idempotency-Key",
			Details: []Detail{{Field: "Idempotency-Key", Message: "use 1 to 255 printable ASCII characters, best a UUID"}},
		}
	}
	b, err := json.Marshal(request)
	if err != nil {
		return Key{}, fmt.Errorf("encode request of %s: %w", operation, err)
	}
	return Key{operation: operation, key: header, request: sha256.Sum256(b), ttl: ttl}, nil
}

// KeyReused is the answer to a key that came before with another request.
func KeyReused() *Problem {
	return &Problem{
		Status: http.StatusUnprocessableEntity, Message: "Idempotency-Key reused",
		Details: []Detail{{Field: "Idempotency-Key", Message: "it came before with another request; use a new key"}},
	}
}

// Claim makes tx the only one that works on k, and decodes the answer kept
// under k into answer. Where it found one, tx must have no effect.
func (k Key) Claim(ctx context.Context, tx pgx.Tx, answer any) (found bool, err error) {
	if k.key == "" {
		return false, nil
	}
	// The second statement sees what was committed while the first waited.
	var batch pgx.Batch
	batch.Queue(`select pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 0))`, k.operation, k.key)
	batch.Queue(`select request, answer from idempotency_keys where operation = $1 and key = $2 and expires_at > now()`,
		k.operation, k.key)
	results := tx.SendBatch(ctx, &batch)
	var request, kept []byte
	_, err = results.Exec()
	if err == nil {
		err = results.QueryRow().Scan(&request, &kept)
	}
	if closeErr := results.Close(); err == nil {
		err = closeErr
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("claim idempotency key: %w", err)
	case string(request) != string(k.request[:]):
		return false, KeyReused()
	}
	if err := json.Unmarshal(kept, answer); err != nil {
		return false, fmt.Errorf("decode kept answer: %w", err)
	}
	return true, nil
}

// Queue adds to batch what keeps answer under k. Call it in the transaction
// that claimed k.
func (k Key) Queue(batch *pgx.Batch, answer any) error {
	if k.key == "" {
		return nil
	}
	b, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("encode answer to keep: %w", err)
	}
	// A conflict can only be with a key that has expired.
	batch.Queue(`insert into idempotency_keys (operation, key, request, answer, expires_at)
		values ($1, $2, $3, $4::text::jsonb, now() + $5::interval)
		on conflict (operation, key) do update
		set request = excluded.request, answer = excluded.answer, expires_at = excluded.expires_at`,
		k.operation, k.key, k.request[:], string(b), k.ttl)
	return nil
}
