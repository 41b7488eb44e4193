package inbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

// childVariable holds DSN, brokers, topic, how often offsets are committed and
// the instance's name, by the newline, in the environment of a child process.
const childVariable = "WALPOST_INBOX_CHILD"

func TestMain(m *testing.M) {
	if settings := os.Getenv(childVariable); settings != "" {
		if err := child(context.Background(), strings.Split(settings, "\n")); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
		}
		os.Exit(1) // it is killed, or it failed
	}
	os.Exit(m.Run())
}

// child runs an inbox until it is killed.
func child(ctx context.Context, settings []string) error {
	dsn, brokers, topic := settings[0], strings.Split(settings[1], ","), settings[2]
	commitEvery, err := time.ParseDuration(settings[3])
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return err
	}
	in, err := inbox.New(inbox.Config{
		Brokers: brokers, Group: topic, Pool: pool, Window: -1, CommitEvery: commitEvery,
		Instance: settings[4], SessionTimeout: 6 * time.Second, Hooks: []inbox.Hook{recorder{pool}},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	typed := outbox.Typed[step]{Name: "Stepped", Topic: topic, AggregateType: "walker"}
	err = inbox.Handle(in, typed, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		if err := effect(ctx, tx, e, "child"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `select pg_sleep($1)`, rand.Float64()/50) // to be killed in
		return err
	})
	if err != nil {
		return err
	}
	return in.Run(ctx)
}

// A recorder writes down which deliveries were recognised.
type recorder struct{ pool *pgxpool.Pool }

func (r recorder) OnDuplicate(ctx context.Context, e inbox.Info) {
	if _, err := r.pool.Exec(ctx, `insert into recognised values ($1, $2, $3)`, e.Topic, e.Partition, e.Offset); err != nil {
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Error("recognised", slog.Any("error", err))
	}
}

// sameMember is the instance of a child that takes over at once, without
// waiting for the killed one's session to end.
const sameMember = "child"

// spawn starts a child and gives what kills it at once, with signal 9.
func (w *world) spawn(t *testing.T, commitEvery time.Duration) (kill func()) {
	t.Helper()
	_, kill = w.spawnMember(t, commitEvery, sameMember)
	return kill
}

func (w *world) spawnMember(t *testing.T, commitEvery time.Duration, instance string) (process *os.Process, kill func()) {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(executable)
	cmd.Env = append(os.Environ(), childVariable+"="+strings.Join([]string{w.dsn, strings.Join(w.brokers, ","), w.topic, commitEvery.String(), instance}, "\n"))
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if killed {
			return
		}
		killed = true
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("kill: %v: the child ended by itself", err)
		}
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	return cmd.Process, kill
}

func newKillWorld(t *testing.T, partitions int32) *world {
	w := newWorld(t, partitions)
	w.exec(t, `create table recognised (topic text, partition integer, "offset" bigint)`)
	return w
}

// TestKilledAtAnyTime kills the process again and again while it works.
func TestKilledAtAnyTime(t *testing.T) {
	w := newKillWorld(t, 3)
	ks, last := keys(12), 50
	w.steps(t, 1, last, ks...)
	for range 6 {
		before := value[int](t, w, `select count(*) from effects`)
		kill := w.spawn(t, 50*time.Millisecond)
		w.wait(t, `select count(*) > $1 from effects`, before+20+rand.IntN(40))
		kill()
	}
	w.spawn(t, 50*time.Millisecond)
	w.wait(t, `select count(*) >= $1 from effects`, len(ks)*last)
	w.check(t, last, ks...)
}

// TestKilledBetweenCommitAndOffset kills the process when effects are
// committed and no offset is: all of them are delivered again.
func TestKilledBetweenCommitAndOffset(t *testing.T) {
	w := newKillWorld(t, 1)
	w.steps(t, 1, 10, "a", "b")
	kill := w.spawn(t, time.Hour)
	w.wait(t, `select count(*) = 20 from effects`)
	kill()
	if at := w.committed(t); at > 0 {
		t.Fatalf("offset %d is committed: nothing will be delivered again", at)
	}
	w.spawn(t, time.Hour)
	w.wait(t, `select count(*) = 20 from recognised`)
	w.steps(t, 11, 11, "a", "b")
	w.wait(t, `select count(*) >= 22 from effects`)
	w.check(t, 11, "a", "b")
}

// TestAMemberGivenUpForDead stops a process in the middle of its handlers until
// the group has given its partitions to another, and then lets it go on.
func TestAMemberGivenUpForDead(t *testing.T) {
	w := newKillWorld(t, 2)
	ks, last := keys(12), 60
	w.steps(t, 1, last, ks...)
	process, _ := w.spawnMember(t, 50*time.Millisecond, "")
	w.wait(t, `select count(*) > 100 from effects`)
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	open := `select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'`
	devstacktest.Wait(t, "the stopped handlers' statements to end", limit, func() bool {
		return value[bool](t, w, `select not exists (select from pg_stat_activity where datname = current_database() and query like '%pg_sleep%' and state = 'active' and pid <> pg_backend_pid())`)
	})
	if n := value[int](t, w, open); n == 0 {
		t.Error("the process was stopped with no transaction open: the test tests little")
	}
	config := w.config(t)
	config.Hooks = []inbox.Hook{recorder{w.pool}}
	w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error { return effect(ctx, tx, e, "other") })
	w.wait(t, `select count(*) > 100 from effects where member = 'other'`)
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.steps(t, last+1, last+10, ks...)
	w.wait(t, `select count(*) >= $1 from effects`, len(ks)*(last+10))
	w.check(t, last+10, ks...)
	if n := value[int](t, w, `select count(*) from inbox_dead`); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}
