package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

// addresses finds in a log, line by line, where the servers listen.
type addresses struct {
	found map[string]string
	both  chan struct{}
}

func (a *addresses) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		var entry struct{ Server, Address string }
		if json.Unmarshal(line, &entry) == nil && entry.Server != "" {
			a.found[entry.Server] = entry.Address
			if len(a.found) == 2 {
				close(a.both)
			}
		}
	}
	return len(b), nil
}

func TestServe(t *testing.T) {
	dsn := devstacktest.Database(t)
	flags := []string{"--postgres", dsn, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}
	err := run(t.Context(), flags, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "run: user migrate") {
		t.Fatalf("serve without tables = %v, want what to type", err)
	}
	t.Setenv("USER_POSTGRES", dsn)
	if err := run(t.Context(), []string{"migrate"}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	log := &addresses{found: map[string]string{}, both: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- run(ctx, flags, io.Discard, log) }()
	select {
	case <-log.both:
	case err := <-done:
		t.Fatalf("serve = %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("serve does not listen")
	}
	for _, url := range []string{
		log.found["api"] + "/ready", log.found["api"] + "/openapi.json", log.found["operations"] + "/ready", log.found["operations"] + "/metrics",
	} {
		response, err := http.Get("http://" + url)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s = %d", url, response.StatusCode)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--nonsense"}, {"serve", "--postgres", "x", "--log-format", "xml"}, {"migrate", "more"}} {
		err := run(t.Context(), args, io.Discard, io.Discard)
		if exit, ok := errors.AsType[*daemon.ExitError](err); !ok || exit.Code != daemon.ExitUsage {
			t.Errorf("%v = %v, want wrong use", args, err)
		}
	}
	var out strings.Builder
	if err := run(t.Context(), []string{"version"}, &out, io.Discard); err != nil || strings.TrimSpace(out.String()) != daemon.Version() {
		t.Errorf("version printed %q, %v", out.String(), err)
	}
}
