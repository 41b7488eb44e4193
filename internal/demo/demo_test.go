package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/services/user"
)

// newDemo gives a demo; at the end of the test nothing of it may be left in
// this process. So these tests do not run in parallel.
func newDemo(t *testing.T, cfg Config) *Demo {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real servers, which -short leaves out")
	}
	t.Cleanup(func() { goleak.VerifyNone(t) })
	cfg.Progress = os.Stderr
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// checkGone fails the test where a server runs, or any process works in dir.
func checkGone(t *testing.T, s Servers) {
	t.Helper()
	for name, pid := range map[string]int{"PostgreSQL": s.PostgresPID, s.MongoKind: s.MongoPID} {
		if s.MongoKind == devstack.KindExternal && name == s.MongoKind {
			continue
		}
		if pid <= 0 {
			t.Errorf("%s has process id %d", name, pid)
		} else if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("%s, process %d, is still there: %v", name, pid, err)
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil || len(processes) == 0 {
		t.Fatalf("list processes: %v, found %d", err, len(processes))
	}
	for _, process := range processes {
		// A process that has ended meanwhile, or is somebody else's, has none.
		if wd, err := os.Readlink(process); err == nil && strings.HasPrefix(wd, s.Dir+"/") {
			t.Errorf("%s works in %s", process, wd)
		}
	}
}

func TestOnceFollowsEveryEvent(t *testing.T) {
	began := time.Now()
	m, err := newDemo(t, Config{}).Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	took := milliseconds(time.Since(began))
	if !m.OK || len(m.Missing) != 0 {
		t.Errorf("ok = %t, missing %q", m.OK, m.Missing)
	}
	if want := (Requests{Accepted: 6, Refused: 6}); m.Requests != want {
		t.Errorf("requests = %+v, want %+v", m.Requests, want)
	}
	if want := (Counts{8, 8, 8}); m.Counts != want {
		t.Errorf("counts = %+v, want %+v", m.Counts, want)
	}
	for name, d := range map[string]Distribution{"Kafka": m.Latency.ToKafka, "the archive": m.Latency.ToArchive} {
		// A time in whole milliseconds can be just before the commit.
		if d.Count != 8 || d.P50 < -1 || d.P50 > d.P99 || d.P99 > d.Max || d.Max <= 0 || d.Max > took {
			t.Errorf("latency to %s = %+v in a run of %.0f ms", name, d, took)
		}
	}
	if m.Latency.Insert <= 0 || m.Latency.Insert > took {
		t.Errorf("an insert takes %f ms in a run of %.0f ms", m.Latency.Insert, took)
	}
	if s := m.Startup; s.ServersReady <= 0 || s.ProgramsReady <= s.ServersReady || s.FirstArchived <= s.ProgramsReady || s.FirstArchived > took {
		t.Errorf("startup = %+v in a run of %.0f ms", s, took)
	}
	checkUsers(t, m.Users)
	checkGone(t, m.Servers)
	if _, err := os.Stat(m.Servers.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary folder is still there: %v", err)
	}
	var text bytes.Buffer
	if err := m.WriteText(&text); err != nil || !strings.Contains(text.String(), "8 rows committed, 8 records published, 8 documents archived") {
		t.Errorf("as text (%v):\n%s", err, &text)
	}
}

func checkUsers(t *testing.T, users []Replay) {
	t.Helper()
	if len(users) != 2 {
		t.Fatalf("%d users, want ada and bob", len(users))
	}
	for _, u := range users {
		row, err := json.Marshal(u.Row)
		if err != nil {
			t.Fatal(err)
		}
		// Equal must not be taken on trust: compare what is printed.
		if got, want := canonical(t, u.Replayed), canonical(t, row); got != want || !u.Equal {
			t.Errorf("equal = %t\nreplayed %s\n     row %s", u.Equal, got, want)
		}
		if u.Events != u.Row.Version {
			t.Errorf("%s: %d events for version %d", u.Row.Username, u.Events, u.Row.Version)
		}
	}
	ada, bob := users[0].Row, users[1].Row
	if ada.Username != "ada" || ada.FullName != "Ada King" || ada.DateOfBirth != nil || ada.LoginCount != 2 || ada.Version != 4 || ada.Status != user.Active {
		t.Errorf("ada = %+v", ada)
	}
	if bob.Username != "bob" || bob.Status != user.Deactivated || bob.Version != 2 || bob.LoginCount != 0 {
		t.Errorf("bob = %+v", bob)
	}
}

// canonical gives JSON with sorted members.
func canonical(t *testing.T, raw []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	sorted, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(sorted)
}

func TestOnceNamesTheStageThatIsBroken(t *testing.T) {
	for _, test := range []struct {
		name   string
		cfg    Config
		want   []string // in this order
		counts Counts
	}{
		{
			"the archive reads no topic",
			Config{Timeout: 3 * time.Second, Archive: func(c *archive.Config) { c.Topics = "^nothing$" }},
			[]string{"documents archived: 8 of 8 committed events are missing, first UserCreated ", "replay of user/", "replay of user/"},
			Counts{8, 8, 0},
		},
		{
			"the relay finds no table",
			Config{Relay: func(c *relay.Config) { c.Table = "nowhere" }},
			[]string{"relay: "},
			Counts{},
		},
		{
			"the relay finds no Kafka",
			Config{Timeout: 2 * time.Second, Relay: func(c *relay.Config) { c.Brokers = []string{"127.0.0.1:1"} }},
			[]string{"the relay is not ready after 2s: "},
			Counts{},
		},
		{
			"the user service refuses everybody",
			Config{User: func(c *user.Config) { c.EmailDomains = []string{"example.com"} }},
			[]string{"play the round: create ada: status 422, want 201"},
			Counts{},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.cfg.Dir = devstacktest.Dir(t) // removed, which a failed demo's own is not
			m, err := newDemo(t, test.cfg).Once(t.Context())
			incomplete, ok := errors.AsType[*IncompleteError](err)
			if !ok {
				t.Fatalf("error = %v, want an IncompleteError", err)
			}
			if m.OK || !slices.Equal(m.Missing, incomplete.Missing) || len(m.Missing) != len(test.want) {
				t.Fatalf("ok = %t, missing %q, want %d things", m.OK, m.Missing, len(test.want))
			}
			for i, want := range test.want {
				if !strings.HasPrefix(m.Missing[i], want) || !strings.Contains(err.Error(), m.Missing[i]) {
					t.Errorf("missing %q, want %q; error %q", m.Missing[i], want, err)
				}
			}
			if m.Counts != test.counts {
				t.Errorf("counts = %+v, want %+v", m.Counts, test.counts)
			}
			checkGone(t, m.Servers)
			if want := filepath.Join(test.cfg.Dir, "log"); incomplete.Logs != want {
				t.Errorf("logs in %q, want %q", incomplete.Logs, want)
			}
			if logs, err := filepath.Glob(filepath.Join(test.cfg.Dir, "log", "*.log")); err != nil || len(logs) == 0 {
				t.Errorf("no logs are left: %v", err)
			}
		})
	}
}

func TestServerThatEndsStopsTheDemo(t *testing.T) {
	for name, kill := range map[string]func(*servers) error{
		"PostgreSQL": func(s *servers) error { return s.postgres.Kill() },
		"MongoDB":    func(s *servers) error { return s.mongo.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "MongoDB" && os.Getenv("WALPOST_MONGO_URI") != "" {
				t.Skip("the MongoDB of WALPOST_MONGO_URI is not ours to end")
			}
			d := newDemo(t, Config{Dir: devstacktest.Dir(t)})
			var servers Servers
			err := d.run(t.Context(), func(s *stack) {
				var m Summary
				m.made(s)
				servers = m.Servers
			}, func(ctx context.Context, s *stack) error {
				if err := kill(s.servers); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			})
			if err == nil || !strings.Contains(err.Error(), name+" has ended by itself") || !strings.Contains(err.Error(), "\nlogs: "+d.cfg.Dir) {
				t.Errorf("error = %v, want that %s has ended", err, name)
			}
			checkGone(t, servers)
		})
	}
}

// TestTwoLive runs two demos at once, one on a terminal, and stops them by
// what they have shown.
func TestTwoLive(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first, second := newDemo(t, Config{Rate: 100}), newDemo(t, Config{Rate: 100})
	pipe, terminal := newScreen(), newScreen()
	ended := make(chan error, 2)
	go func() { ended <- first.Live(ctx, pipe, false) }()
	go func() { ended <- second.Live(ctx, terminal, true) }()

	line := pipe.await(t, "\nrows=", 2)
	for _, field := range []string{"published=", "archived=", "behind=", "relay_lag_bytes=", "commit_to_kafka_p50_ms=", "commit_to_archive_p50_ms=", "failed=0 ", "newest=0"} {
		if !strings.Contains(line, field) {
			t.Errorf("no %s in:\n%s", field, line)
		}
	}
	block := terminal.await(t, "\x1b[J", 3)
	for _, part := range []string{"rows committed ", "records published ", "documents archived ", "commit to Kafka ", "commit to MongoDB ", "brokers 127.0.0.1:", "psql 'postgres://"} {
		if !strings.Contains(block, part) {
			t.Errorf("no %q in:\n%q", part, block)
		}
	}
	follow(t, block)

	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for _, s := range []*screen{pipe, terminal} {
		_, rest, ok := strings.Cut(s.text(), "logs          ")
		dir, _, _ := strings.Cut(rest, "/log\n")
		if _, err := os.Stat(dir); !ok || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("folder %q is still there: %v", dir, err)
		}
	}
}

// follow requests the addresses that a block tells to try.
func follow(t *testing.T, block string) {
	t.Helper()
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	tried := 0
	for line := range strings.Lines(block) {
		address, ok := strings.CutPrefix(strings.TrimSpace(line), "curl ")
		if !ok {
			continue
		}
		tried++
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Error(err)
			continue
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		// The newest user may be on its way to the archive yet.
		if err != nil || response.StatusCode != http.StatusOK && response.StatusCode != http.StatusNotFound {
			t.Errorf("%s: status %d, %v: %s", address, response.StatusCode, err, body)
		}
	}
	if tried < 3 {
		t.Errorf("%d addresses to try in:\n%q", tried, block)
	}
}
