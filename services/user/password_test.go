package user

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestPassword(t *testing.T) {
	t.Parallel()
	h := newHasher(Argon2{MemoryKiB: 64, Time: 1, Threads: 1}, 1)
	phc, err := h.hash(t.Context(), "Secret12!")
	if err != nil || !strings.HasPrefix(phc, "$argon2id$v=19$m=64,t=1,p=1$") {
		t.Fatalf("hash = %q, %v", phc, err)
	}
	dearer := newHasher(Argon2{MemoryKiB: 128, Time: 2, Threads: 1}, 1) // verifies by the hash's own cost
	for password, want := range map[string]bool{"Secret12!": true, "secret12!": false, "": false} {
		if got, err := dearer.verify(t.Context(), password, phc); got != want || err != nil {
			t.Errorf("verify(%q) = %t, %v, want %t", password, got, err, want)
		}
	}
	other, err := h.hash(t.Context(), "Secret12!")
	if err != nil || other == phc {
		t.Errorf("two hashes of one password are the same: %s, %v", other, err)
	}
}

// An unknown user must cost what a known one does.
func TestDummyCostsTheSame(t *testing.T) {
	t.Parallel()
	h := newHasher(Argon2{MemoryKiB: 96, Time: 3, Threads: 2}, 1)
	cost, salt, sum, err := parsePHC(h.dummy)
	if err != nil || cost != h.cost || len(salt) != saltBytes || len(sum) != hashBytes {
		t.Errorf("dummy has cost %+v, salt of %d, hash of %d bytes, %v", cost, len(salt), len(sum), err)
	}
}

func TestParsePHCRefuses(t *testing.T) {
	t.Parallel()
	good := newHasher(Argon2{MemoryKiB: 64, Time: 1, Threads: 1}, 1).dummy
	for name, s := range map[string]string{
		"empty": "", "argon2i": strings.Replace(good, "argon2id", "argon2i", 1), "version": strings.Replace(good, "v=19", "v=16", 1),
		"trailing cost": strings.Replace(good, "p=1", "p=1x", 1), "no passes": strings.Replace(good, "t=1", "t=0", 1),
		"one part more": good + "$", "not base64": good[:len(good)-1] + "!",
	} {
		if _, _, _, err := parsePHC(s); err == nil {
			t.Errorf("%s: parsePHC(%q) accepts it", name, s)
		}
	}
}

// Who waits for a slot goes when its context does.
func TestHashingIsBounded(t *testing.T) {
	t.Parallel()
	h := newHasher(Argon2{MemoryKiB: 64, Time: 1, Threads: 1}, 1)
	h.slots <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := h.hash(ctx, "Secret12!"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hash with no slot free = %v, want the deadline", err)
	}
	<-h.slots
	if _, err := h.hash(t.Context(), "Secret12!"); err != nil {
		t.Errorf("hash with a slot free = %v", err)
	}
}

func TestMinimumAge(t *testing.T) {
	t.Parallel()
	today := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for born, want := range map[string]bool{"2013-11-24": true, "2013-11-25": false, "1990-02-28": true, "2020-01-01": false} {
		if got := (policy{}).checkBirth(&born, today) == nil; got != want {
			t.Errorf("born %s: allowed %t, want %t", born, got, want)
		}
	}
	if err := (policy{}).checkBirth(nil, today); err != nil {
		t.Errorf("no date of birth: %v", err)
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := New(Config{MaxHashes: -1, Argon2: Argon2{MemoryKiB: 4}, EmailDomains: []string{"a@b"}, SigningKey: nil, SessionTTL: 1})
	if err == nil {
		t.Fatal("New accepts it")
	}
	for _, name := range []string{"db", "log", "max-hashes", "argon2-memory-kib", "email-domains", "session-ttl"} {
		if !strings.Contains(err.Error(), name+":") {
			t.Errorf("%s is not named in %q", name, err)
		}
	}
}
