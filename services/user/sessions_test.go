package user_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/seed-048de892/walpost/services/user"
)

func decode[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("decode %s: %v", b, err)
	}
	return v
}

func TestSession(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	ada := f.create("ada")
	r := f.want(f.do("POST", "/sessions", credentials("Ada@Example.org", secret)), http.StatusCreated)
	session := decode[user.SessionState](t, r.Data)

	// A foreign reader verifies it by the published keys.
	keys := decode[user.JWKS](t, []byte(f.do("GET", "/.well-known/jwks.json", "").raw))
	claims := jwt.RegisteredClaims{}
	_, err := jwt.ParseWithClaims(session.Token, &claims, func(token *jwt.Token) (any, error) {
		for _, key := range keys.Keys {
			if key.KeyID == token.Header["kid"] {
				b, err := base64.RawURLEncoding.DecodeString(key.X)
				return ed25519.PublicKey(b), err
			}
		}
		return nil, fmt.Errorf("no key %v", token.Header["kid"])
	})
	if err != nil || claims.Subject != ada.ID.String() || claims.ID != session.ID.String() || claims.ExpiresAt.Sub(claims.IssuedAt.Time) != time.Hour {
		t.Errorf("token claims %+v: %v", claims, err)
	}

	auth := "Authorization: Bearer " + session.Token
	f.want(f.do("PATCH", "/users/"+ada.ID.String(), `{"fullName":"Some Two"}`, `If-Match: *`, auth), http.StatusOK)
	if got := f.records()[2].Headers["userId"]; got != ada.ID.String() {
		t.Errorf("userId of UserUpdated = %q, want who was logged in", got)
	}
	f.want(f.do("DELETE", "/sessions/current", "", auth), http.StatusNoContent)
	f.want(f.do("DELETE", "/sessions/current", "", auth), http.StatusUnauthorized)
	f.want(f.do("DELETE", "/sessions/current", ""), http.StatusUnauthorized)
	f.want(f.do("GET", "/users", "", auth+"x"), http.StatusUnauthorized)
	f.want(f.do("GET", "/users", "", "Authorization: Bearer "), http.StatusUnauthorized)
}

func TestReplicasShareTheKey(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	f.create("ada")
	session := decode[user.SessionState](t, f.want(f.do("POST", "/sessions", credentials("ada", secret)), 201).Data)
	other := serve(t, f.dsn, testLog(t), nil)
	other.want(other.do("DELETE", "/sessions/current", "", "Authorization: Bearer "+session.Token), http.StatusNoContent)
}

// What is not told to whoever guesses: whether the name exists.
func TestWrongLoginsLookTheSame(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *user.Config) { c.MaxFailures = 3 })
	f.create("ada")
	for i := range 5 {
		known := f.do("POST", "/sessions", credentials("ada", "Wrong123!"), "X-Request-ID: same")
		unknown := f.do("POST", "/sessions", credentials("nobody", "Wrong123!"), "X-Request-ID: same")
		want := http.StatusUnauthorized
		if i >= 3 {
			want = http.StatusTooManyRequests
		}
		if known.Status != want || unknown.Status != want {
			t.Fatalf("attempt %d: known %d, unknown %d, want %d", i, known.Status, unknown.Status, want)
		}
		if i < 3 && known.raw != unknown.raw {
			t.Errorf("answers differ: %s and %s", known.raw, unknown.raw)
		}
		if want == http.StatusTooManyRequests && (known.Header.Get("Retry-After") == "" || unknown.Header.Get("Retry-After") == "") {
			t.Errorf("no Retry-After: %v %v", known.Header, unknown.Header)
		}
	}
	f.want(f.do("POST", "/sessions", credentials("ADA", secret)), http.StatusTooManyRequests)
	replica := serve(t, f.dsn, testLog(t), nil)
	replica.want(replica.do("POST", "/sessions", credentials("ada", secret)), http.StatusTooManyRequests)

	f.exec(`update login_attempts set locked_until = now() - interval '1 second'`)
	f.want(f.do("POST", "/sessions", credentials("ada", "Wrong123!")), http.StatusUnauthorized)
	f.want(f.do("POST", "/sessions", credentials("ada", secret)), http.StatusCreated)
	if got := f.count(`select count(*) from login_attempts`); got != 1 {
		t.Errorf("%d names with failures, want 1: a log-in forgets its own", got)
	}
}

func TestDeactivationEndsSessions(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	ada := f.create("ada")
	session := decode[user.SessionState](t, f.want(f.do("POST", "/sessions", credentials("ada", secret)), 201).Data)
	f.want(f.do("POST", "/users/"+ada.ID.String()+"/deactivate", ""), http.StatusOK)
	f.want(f.do("DELETE", "/sessions/current", "", "Authorization: Bearer "+session.Token), http.StatusUnauthorized)
}
