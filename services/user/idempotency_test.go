package user_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/seed-048de892/walpost/services/user"
)

func TestSameKeyGivesTheFirstAnswer(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	key := "Idempotency-Key: 6f1c"
	first := f.want(f.do("POST", "/users", signUp("ada"), key), http.StatusCreated)
	again := f.want(f.do("POST", "/users", signUp("ada"), key), http.StatusCreated)
	if string(first.Data) != string(again.Data) || again.Header.Get("Idempotency-Replayed") != "true" || again.Header.Get("ETag") != `"1"` {
		t.Errorf("first %s\nagain %s %v", first.raw, again.raw, again.Header)
	}
	f.want(f.do("POST", "/users", signUp("bob"), key), http.StatusUnprocessableEntity)
	f.want(f.do("POST", "/users", strings.Replace(signUp("ada"), secret, "Other123!", 1), key), http.StatusUnprocessableEntity)
	f.want(f.do("POST", "/users", signUp("bob"), "Idempotency-Key: "+strings.Repeat("k", 256)), http.StatusBadRequest)

	refused := f.want(f.do("POST", "/users", signUp("ADA"), "Idempotency-Key: no"), http.StatusConflict)
	refusedAgain := f.want(f.do("POST", "/users", signUp("ADA"), "Idempotency-Key: no"), http.StatusConflict)
	if refused.fields() != refusedAgain.fields() {
		t.Errorf("refusals differ: %s and %s", refused.raw, refusedAgain.raw)
	}
	if got := f.count(`select count(*) from outbox where topic = 'user.creation_failed'`); got != 1 {
		t.Errorf("%d failures recorded, want 1", got)
	}

	login := f.want(f.do("POST", "/sessions", credentials("ada", secret), key), http.StatusCreated)
	loginAgain := f.want(f.do("POST", "/sessions", credentials("ada", secret), key), http.StatusCreated)
	if string(login.Data) != string(loginAgain.Data) {
		t.Errorf("log-ins differ: %s and %s", login.raw, loginAgain.raw)
	}
	f.want(f.do("POST", "/sessions", credentials("ada", "Wrong123!"), key), http.StatusUnauthorized)

	path := "/users/" + first.state(t).ID.String() + "/deactivate"
	gone := f.want(f.do("POST", path, "", key), http.StatusOK)
	goneAgain := f.want(f.do("POST", path, "", key), http.StatusOK)
	if string(gone.Data) != string(goneAgain.Data) {
		t.Errorf("deactivations differ: %s and %s", gone.raw, goneAgain.raw)
	}
	f.checkFold()

	var kept string
	if err := f.db.QueryRow(t.Context(), `select string_agg(k::text, ' ') from idempotency_keys k`).Scan(&kept); err != nil {
		t.Fatal(err)
	}
	token := decode[user.SessionState](t, login.Data).Token
	for _, s := range []string{secret, "argon2", token} {
		if strings.Contains(kept, s) {
			t.Errorf("%q stands in idempotency_keys", s)
		}
	}
}

func TestConcurrentSameKeyHasOneEffect(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	answers := make([]reply, 20)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = f.do("POST", "/users", signUp("ada"), "Idempotency-Key: one") })
	}
	wg.Wait()
	for _, r := range answers {
		if r.Status != http.StatusCreated || string(r.Data) != string(answers[0].Data) {
			t.Errorf("got %d %s, want 201 %s", r.Status, r.raw, answers[0].Data)
		}
	}
	if got := f.count(`select count(*) from outbox`); got != 1 {
		t.Errorf("%d events, want 1", got)
	}
}

func TestExpiredKeyIsFree(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	f.want(f.do("POST", "/users", signUp("ada"), "Idempotency-Key: k"), http.StatusCreated)
	f.exec(`update idempotency_keys set expires_at = now() - interval '1 second'`)
	r := f.want(f.do("POST", "/users", signUp("bob"), "Idempotency-Key: k"), http.StatusCreated)
	if got := r.state(t).Username; got != "bob" {
		t.Errorf("created %s, want bob", got)
	}
}
