package user_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/services/user"
)

func TestUserLife(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	created := f.want(f.do("POST", "/users", signUp("ada"), "X-Request-ID: req-1", "traceparent: "+parent), http.StatusCreated)
	ada := created.state(t)
	if ada.Version != 1 || ada.Status != user.Active || created.Header.Get("ETag") != `"1"` || created.Header.Get("Location") != "/users/"+ada.ID.String() {
		t.Errorf("created %s with headers %v", created.raw, created.Header)
	}
	if created.Header.Get("X-Request-ID") != "req-1" || created.Meta.RequestID != "req-1" {
		t.Errorf("request id did not come back: %s", created.raw)
	}
	path := "/users/" + ada.ID.String()

	f.want(f.do("PATCH", path, `{"email":"new@example.org"}`), http.StatusPreconditionRequired)
	f.want(f.do("PATCH", path, `{"email":"new@example.org"}`, `If-Match: "2"`), http.StatusPreconditionFailed)
	f.want(f.do("PATCH", path, `{"email":"new@example.org"}`, `If-Match: W/"1"`), http.StatusPreconditionFailed)
	f.want(f.do("PATCH", path, `{"email":"new@example.org"}`, `If-Match: 1`), http.StatusBadRequest)
	updated := f.want(f.do("PATCH", path, `{"email":"new@example.org","dateOfBirth":null}`, `If-Match: "1"`), http.StatusOK)
	if s := updated.state(t); s.Email != "new@example.org" || s.DateOfBirth != nil || s.Version != 2 || updated.Header.Get("ETag") != `"2"` {
		t.Errorf("updated to %s", updated.raw)
	}
	same := f.want(f.do("PATCH", path, `{"email":"new@example.org"}`, `If-Match: *`), http.StatusOK)
	if got := same.state(t).Version; got != 2 {
		t.Errorf("an update that changes nothing made version %d", got)
	}
	bad := f.want(f.do("PATCH", path, `{"username":null,"fullName":"x","role":"admin","dateOfBirth":"soon"}`, `If-Match: *`), http.StatusUnprocessableEntity)
	for _, field := range []string{"username", "fullName", "role", "dateOfBirth"} {
		if !strings.Contains(bad.fields(), field) {
			t.Errorf("problem of %s not named: %s", field, bad.raw)
		}
	}

	f.want(f.do("POST", "/sessions", credentials("ADA", secret), "User-Agent: tester"), http.StatusCreated)
	read := f.want(f.do("GET", path, ""), http.StatusOK).state(t)
	if read.LoginCount != 1 || read.LastLogin == nil || read.LastLogin.UserAgent != "tester" || read.LastLogin.IP != "127.0.0.1" {
		t.Errorf("after log-in: %+v", read)
	}
	f.want(f.do("POST", path+"/deactivate", "", `If-Match: "9"`), http.StatusPreconditionFailed)
	f.want(f.do("POST", path+"/deactivate", ""), http.StatusOK)
	f.want(f.do("POST", path+"/deactivate", ""), http.StatusConflict)
	f.want(f.do("PATCH", path, `{"fullName":"Some Two"}`, `If-Match: *`), http.StatusConflict)
	f.want(f.do("POST", "/sessions", credentials("ada", secret)), http.StatusForbidden)
	f.want(f.do("GET", "/users/0190163d-8694-739b-aea5-966c26f8ad91", ""), http.StatusNotFound)

	f.checkFold()
	records := f.records()
	var got []string
	for _, r := range records {
		got = append(got, fmt.Sprint(r.Topic, r.Type, r.AggregateVersion))
	}
	want := "user.createdUserCreated1 user.updatedUserUpdated2 user.logged_inUserLoggedIn3 user.deactivatedUserDeactivated4"
	if strings.Join(got, " ") != want {
		t.Errorf("recorded %v, want %s", got, want)
	}
	h := records[0].Headers
	if h["requestId"] != "req-1" || h["correlationId"] != "req-1" || h["userId"] != ada.ID.String() || h["traceparent"] != parent {
		t.Errorf("headers of UserCreated = %v", h)
	}
}

// The event is not there without the state, nor the state without the event.
func TestStateAndEventAreOneTransaction(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]string{
		"event fails": `alter table outbox add constraint broken check (type not like 'User%') not valid`,
		"state fails": `alter table users add constraint broken check (version < 0) not valid`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, nil)
			ada := f.create("ada")
			f.exec(broken)
			path := "/users/" + ada.ID.String()
			f.want(f.do("POST", "/users", signUp("bob"), "Idempotency-Key: k"), http.StatusInternalServerError)
			f.want(f.do("PATCH", path, `{"fullName":"Some Two"}`, `If-Match: *`), http.StatusInternalServerError)
			f.want(f.do("POST", "/sessions", credentials("ada", secret)), http.StatusInternalServerError)
			f.want(f.do("POST", path+"/deactivate", ""), http.StatusInternalServerError)
			if got := f.count(`select count(*) from users`); got != 1 {
				t.Errorf("%d users, want the one from before", got)
			}
			if got := f.count(`select count(*) from outbox`); got != 1 {
				t.Errorf("%d events, want the one from before", got)
			}
			if got := f.count(`select count(*) from sessions`) + f.count(`select count(*) from idempotency_keys`); got != 0 {
				t.Errorf("%d sessions and keys of commands that failed", got)
			}
			f.checkFold()
		})
	}
}

func TestRacingForOneAddress(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	const racers = 20
	status := make([]int, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			email := []string{"ada@example.org", "ADA@example.org"}[i%2]
			status[i] = f.do("POST", "/users", strings.Replace(signUp(fmt.Sprintf("user%d", i)), fmt.Sprintf("user%d@example.org", i), email, 1)).Status
		})
	}
	wg.Wait()
	counts := map[int]int{}
	for _, s := range status {
		counts[s]++
	}
	if counts[201] != 1 || counts[409] != racers-1 {
		t.Errorf("statuses %v, want one 201 and %d 409", counts, racers-1)
	}
	if got := f.count(`select count(*) from outbox where topic = 'user.creation_failed'`); got != racers-1 {
		t.Errorf("%d failures recorded, want %d", got, racers-1)
	}
	f.checkFold()
}

// Changes of one user at the same time queue up: none fails, none is lost.
func TestConcurrentChangesHaveDenseVersions(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	ada := f.create("ada")
	var wg sync.WaitGroup
	for i := range 15 {
		wg.Go(func() {
			if r := f.do("POST", "/sessions", credentials("ada", secret)); r.Status != http.StatusCreated {
				t.Errorf("log-in: %s", r.raw)
			}
		})
		wg.Go(func() {
			body := fmt.Sprintf(`{"fullName":"Name %d"}`, i)
			if r := f.do("PATCH", "/users/"+ada.ID.String(), body, `If-Match: *`); r.Status != http.StatusOK {
				t.Errorf("update: %s", r.raw)
			}
		})
	}
	wg.Wait()
	if got := f.want(f.do("GET", "/users/"+ada.ID.String(), ""), 200).state(t).Version; got != 31 {
		t.Errorf("version = %d after 30 changes, want 31", got)
	}
	f.checkFold()
}

func TestRefusedRuleIsRecorded(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *user.Config) { c.EmailDomains = []string{"Example.org"} })
	f.create("ada")
	f.exec(`delete from outbox`)
	tests := map[string]struct {
		body        string
		status      int
		rule, field string
	}{
		"name taken":     {strings.Replace(signUp("ADA"), "ADA@", "b@", 1), 409, "unique", "username"},
		"address taken":  {strings.Replace(signUp("bob"), "bob@", "Ada@", 1), 409, "unique", "email"},
		"too young":      {strings.Replace(signUp("kid"), "1990", "2020", 1), 422, "minimum_age", "dateOfBirth"},
		"foreign domain": {strings.Replace(signUp("eve"), "example.org", "example.com", 1), 422, "email_domain", "email"},
	}
	for name, tt := range tests {
		r := f.want(f.do("POST", "/users", tt.body), tt.status)
		if r.fields() != tt.field {
			t.Errorf("%s: fields %q, want %q: %s", name, r.fields(), tt.field, r.raw)
		}
		records := f.records()
		if len(records) != 1 {
			t.Fatalf("%s: %d events, want 1", name, len(records))
		}
		e := records[0]
		if e.Topic != "user.creation_failed" || e.Type != user.UserCreationFailed || e.AggregateType != user.AggregateCreation {
			t.Errorf("%s: recorded %+v", name, e)
		}
		payload := string(e.Payload)
		if !strings.Contains(payload, `"rule":"`+tt.rule+`"`) || !strings.Contains(payload, `"commandId":"`+e.AggregateID+`"`) {
			t.Errorf("%s: payload %s", name, payload)
		}
		if strings.Contains(payload, secret) || strings.Contains(payload, "argon2") {
			t.Errorf("%s: payload holds the password: %s", name, payload)
		}
		f.exec(`delete from outbox`)
	}
	if got := f.count(`select count(*) from users`); got != 1 {
		t.Errorf("%d users, want 1", got)
	}
}

func TestListPages(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	for i := range 5 {
		f.create(fmt.Sprintf("user%d", i))
	}
	var seen []string
	for after := ""; ; {
		path := "/users?limit=2"
		if after != "" {
			path += "&after=" + after
		}
		r := f.want(f.do("GET", path, ""), http.StatusOK)
		seen = append(seen, usernames(t, r)...)
		if after = r.Meta.Next; after == "" {
			break
		}
	}
	if got := strings.Join(seen, " "); got != "user0 user1 user2 user3 user4" {
		t.Errorf("pages gave %q", got)
	}
	if got := usernames(t, f.do("GET", "/users?email=USER3@example.org", "")); len(got) != 1 || got[0] != "user3" {
		t.Errorf("by address: %v", got)
	}
	if r := f.want(f.do("GET", "/users?username=nobody", ""), http.StatusOK); string(r.Data) != "[]" {
		t.Errorf("nobody: %s", r.raw)
	}
	f.want(f.do("GET", "/users?limit=101", ""), http.StatusUnprocessableEntity)
	f.want(f.do("GET", "/users?page=2", ""), http.StatusUnprocessableEntity)
	f.want(f.do("GET", "/users?username=%00", ""), http.StatusOK)
	f.want(f.do("POST", "/sessions", `{"login":"a\u0000b","password":"x"}`), http.StatusBadRequest)
}

// Any sequence of commands leaves events that fold to the rows.
func TestEventsFoldToState(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	next := 0
	rapid.Check(t, func(rt *rapid.T) {
		var paths, names []string
		pick := func() int { return rapid.IntRange(0, len(paths)-1).Draw(rt, "user") }
		create := func(*rapid.T) {
			name := fmt.Sprintf("user%d", next)
			next++
			r := f.want(f.do("POST", "/users", signUp(name)), http.StatusCreated)
			paths, names = append(paths, "/users/"+r.state(f.T).ID.String()), append(names, name)
		}
		create(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"create": create,
			"update": func(rt *rapid.T) {
				body := rapid.SampledFrom([]string{
					`{"dateOfBirth":null}`, `{"dateOfBirth":"1980-02-29"}`, `{"fullName":"Zoë \"<&>\" 名"}`, `{"fullName":"Some One"}`,
					`{"email":"same@example.org"}`, `{"dateOfBirth":"2024-01-01"}`, `{}`,
				}).Draw(rt, "body")
				f.do("PATCH", paths[pick()], body, `If-Match: *`)
			},
			"log in": func(rt *rapid.T) {
				agent := rapid.SampledFrom([]string{"User-Agent: ", "User-Agent: a", "User-Agent: b/1 (\"x\")"}).Draw(rt, "agent")
				f.do("POST", "/sessions", credentials(names[pick()], secret), agent)
			},
			"deactivate": func(*rapid.T) { f.do("POST", paths[pick()]+"/deactivate", "") },
		})
		f.checkFold()
		if f.Failed() {
			rt.Fatal("events do not fold to the rows")
		}
	})
}

func usernames(t *testing.T, r reply) (names []string) {
	t.Helper()
	for _, s := range decode[[]user.State](t, r.Data) {
		names = append(names, s.Username)
	}
	return names
}
