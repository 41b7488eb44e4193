package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-048de892/walpost/services/user"
)

const (
	workers  = 8    // requests on their way at once
	maxKnown = 1000 // active users that traffic goes on with
)

// A traffic is people at the user service: they sign up, change their names, log
// in and leave, and some of what they ask is refused.
type traffic struct {
	*client

	accepted, refused, failed atomic.Int64

	mu     sync.Mutex
	count  int          // of names given
	known  []user.State // active, and not being worked on
	newest string       // id of who signed up last
	last   error        // the last that failed
}

// run sends rate requests a second until ctx ends. While all workers are busy
// nothing is sent, and not made up for later.
func (t *traffic) run(ctx context.Context, rate float64) {
	ticks := make(chan struct{})
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range ticks {
				t.request(ctx)
			}
		})
	}
	ticker := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			select {
			case ticks <- struct{}{}:
			default:
			}
		case <-ctx.Done():
			close(ticks)
			wg.Wait()
			return
		}
	}
}

// request does one thing, of which two in five are signing up.
func (t *traffic) request(ctx context.Context) {
	dice := rand.IntN(10)
	u, ok := t.take()
	if !ok || dice < 4 {
		if ok {
			t.giveBack(u)
		}
		t.signUp(ctx)
		return
	}
	var status int
	var next user.State
	var err error
	switch id := u.ID.String(); {
	case dice < 6:
		status, next, err = t.update(ctx, id, u.Version, map[string]any{"fullName": fmt.Sprintf("Ada %c. Lovelace", 'A'+rand.IntN(26))})
	case dice < 8:
		status, next, err = t.logIn(ctx, u.Username, password)
	case dice < 9:
		status, next, err = t.deactivate(ctx, id)
	default: // refused, and recorded as such
		status, _, err = t.create(ctx, newPerson(u.Username))
	}
	t.done(ctx, status, err)
	if next.Version > 0 {
		u = next
	}
	if u.Status == user.Active {
		t.giveBack(u)
	}
}

func (t *traffic) signUp(ctx context.Context) {
	t.mu.Lock()
	t.count++
	name := fmt.Sprintf("ada%d", t.count)
	t.mu.Unlock()
	status, state, err := t.create(ctx, newPerson(name))
	t.done(ctx, status, err)
	if err == nil && status == http.StatusCreated {
		t.mu.Lock()
		t.newest = state.ID.String()
		t.mu.Unlock()
		t.giveBack(state)
	}
}

// done counts an answer. Requests that the end of ctx cut off do not count.
func (t *traffic) done(ctx context.Context, status int, err error) {
	switch {
	case ctx.Err() != nil:
	case err == nil && status < http.StatusMultipleChoices:
		t.accepted.Add(1)
	case err == nil && status < http.StatusInternalServerError:
		t.refused.Add(1)
	default:
		if err == nil {
			err = fmt.Errorf("the user service answers with status %d", status)
		}
		t.failed.Add(1)
		t.mu.Lock()
		t.last = err
		t.mu.Unlock()
	}
}

// take gives a known user that no other worker has.
func (t *traffic) take() (user.State, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) == 0 {
		return user.State{}, false
	}
	i, last := rand.IntN(len(t.known)), len(t.known)-1
	u := t.known[i]
	t.known[i] = t.known[last]
	t.known = t.known[:last]
	return u, true
}

func (t *traffic) giveBack(u user.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) < maxKnown {
		t.known = append(t.known, u)
	}
}

// status gives the newest user's id, "" for none, and the last failure.
func (t *traffic) status() (newest string, last error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.newest, t.last
}
