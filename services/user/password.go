package user

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Argon2 is the cost of hashing a password with argon2id. Changing it affects
// new passwords; old hashes carry their own.
type Argon2 struct {
	MemoryKiB uint32 // memory of one hash; defaults to 19456, OWASP's least for Time 2
	Time      uint32 // passes over the memory; defaults to 2
	Threads   uint8  // defaults to 1
}

const (
	saltBytes = 16
	hashBytes = 32
)

// A hasher hashes passwords, only so many at once: each takes MemoryKiB.
type hasher struct {
	cost  Argon2
	slots chan struct{}
	dummy string // what the password of an unknown user is compared with
}

func newHasher(cost Argon2, atOnce int) *hasher {
	h := &hasher{cost: cost, slots: make(chan struct{}, atOnce)}
	h.dummy = h.format(random(saltBytes), random(hashBytes)) // no password has this hash, but comparing costs the same
	return h
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: since Go 1.24 it ends the program rather
	return b
}

// hash gives password's hash in the PHC string format.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	salt := random(saltBytes)
	sum, err := h.sum(ctx, password, salt, h.cost, hashBytes)
	if err != nil {
		return "", err
	}
	return h.format(salt, sum), nil
}

// verify reports whether phc is a hash of password.
func (h *hasher) verify(ctx context.Context, password, phc string) (bool, error) {
	cost, salt, want, err := parsePHC(phc)
	if err != nil {
		return false, err
	}
	got, err := h.sum(ctx, password, salt, cost, uint32(len(want)))
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1, err
}

func (h *hasher) sum(ctx context.Context, password string, salt []byte, cost Argon2, length uint32) ([]byte, error) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to hash a password: %w", ctx.Err())
	}
	return argon2.IDKey([]byte(password), salt, cost.Time, cost.MemoryKiB, cost.Threads, length), nil
}

func (h *hasher) format(salt, sum []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		h.cost.MemoryKiB, h.cost.Time, h.cost.Threads, b64.EncodeToString(salt), b64.EncodeToString(sum))
}

// parsePHC reads what format writes, and nothing else.
func parsePHC(s string) (cost Argon2, salt, sum []byte, err error) {
	refuse := errors.New("password hash is not argon2id in PHC format")
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return Argon2{}, nil, nil, refuse
	}
	_, err = fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &cost.MemoryKiB, &cost.Time, &cost.Threads)
	// Sscanf accepts trailing text: compare with what the numbers print as.
	if err != nil || parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", cost.MemoryKiB, cost.Time, cost.Threads) || cost.Time < 1 || cost.Threads < 1 {
		return Argon2{}, nil, nil, refuse
	}
	salt, saltErr := base64.RawStdEncoding.Strict().DecodeString(parts[4])
	sum, sumErr := base64.RawStdEncoding.Strict().DecodeString(parts[5])
	if saltErr != nil || sumErr != nil || len(salt) < 8 || len(sum) < 16 {
		return Argon2{}, nil, nil, refuse
	}
	return cost, salt, sum, nil
}
