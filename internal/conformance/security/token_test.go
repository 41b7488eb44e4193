package security

import (
	"encoding/base64"
	"encoding/json"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-048de892/walpost/internal/daemon"
)

// unsecured gives a token without a signature (RFC 7515, A.5), which a broker
// with Kafka's own validator for development takes.
func unsecured(user string, life time.Duration) string {
	part := func(v any) string {
		b, _ := json.Marshal(v) // of maps of strings and numbers: never fails
		return base64.RawURLEncoding.EncodeToString(b)
	}
	now := time.Now()
	return part(map[string]string{"alg": "none"}) + "." + part(map[string]any{
		"sub": user, "iat": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(life).Unix(),
	}) + "."
}

// tokens is an authorization server that knows one client, and counts how often
// it gave a token.
func tokens(t *testing.T, id, secret string, given *atomic.Int32) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != id || password != secret || r.PostFormValue("grant_type") != "client_credentials" || r.PostFormValue("scope") != "kafka" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"invalid_client"}`))
			return
		}
		given.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": unsecured(id, time.Hour), "token_type": "Bearer", "expires_in": 3600})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func secretOf(user string) daemon.Secret { return daemon.Secret(passwords[user]) }

func sorted(names iter.Seq[string]) []string { return slices.Sorted(names) }
