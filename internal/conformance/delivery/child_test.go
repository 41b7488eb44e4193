package delivery_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/seed-048de892/walpost/relay"
)

// childVariable holds an order in the environment of a process that is a relay.
const childVariable = "WALPOST_DELIVERY_CHILD"

// An order says which relay a child is, and when it kills itself.
type order struct {
	Postgres, Source, PositionsTopic, Topic string
	Brokers                                 []string
	Delivery                                relay.Delivery
	TransactionRecords                      int
	TransactionEvery, SenderTimeout         time.Duration
	ConfirmEvery                            time.Duration
	MaxBufferBytes                          int64

	At    place
	After int64 // so many times at the place before
}

// A place is a moment in a relay's work.
type place string

const (
	nowhere      place = ""
	acknowledged place = "a record is acknowledged"
	commitSent   place = "a commit is sent and not answered"
	commitDone   place = "a commit is answered, and not confirmed to PostgreSQL"
	saveSent     place = "a position is stored, and not confirmed to PostgreSQL"
)

// A killer kills its process as a hook of the relay's Kafka client.
type killer struct {
	order order
	seen  atomic.Int64
}

func (k *killer) at(p place) {
	if p == k.order.At && k.seen.Add(1) > k.order.After {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}

func (k *killer) OnProduceRecordUnbuffered(r *kgo.Record, err error) {
	switch {
	case err != nil:
	case r.Topic == k.order.Topic:
		k.at(acknowledged)
	case r.Topic == k.order.PositionsTopic:
		k.at(saveSent)
	}
}

func (k *killer) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key == int16(kmsg.EndTxn) && err == nil {
		k.at(commitSent)
	}
}

func (k *killer) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key == int16(kmsg.EndTxn) && err == nil {
		k.at(commitDone)
	}
}

func TestMain(m *testing.M) {
	if settings := os.Getenv(childVariable); settings != "" {
		if err := child(context.Background(), settings); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
		}
		os.Exit(1) // it is killed, or it failed
	}
	os.Exit(m.Run())
}

func child(ctx context.Context, settings string) error {
	var o order
	if err := json.Unmarshal([]byte(settings), &o); err != nil {
		return err
	}
	r, err := relay.New(relay.Config{
		Postgres: o.Postgres, Brokers: o.Brokers, Source: o.Source, PositionsTopic: o.PositionsTopic,
		Delivery: o.Delivery, TransactionRecords: o.TransactionRecords, TransactionEvery: o.TransactionEvery,
		SenderTimeout: o.SenderTimeout, ConfirmEvery: o.ConfirmEvery, MaxBufferBytes: o.MaxBufferBytes,
		Kafka: []kgo.Opt{kgo.WithHooks(&killer{order: o})},
		Log:   slog.New(slog.NewTextHandler(os.Stderr, nil)).With(slog.String("relay", "child")),
	})
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// A process is a relay in a process of its own.
type process struct {
	w    *world
	cmd  *exec.Cmd
	kill func() // with signal 9
}

// spawn starts a relay that kills itself at a place, or is killed later.
func (w *world) spawn(config relay.Config, at place, after int64) *process {
	w.t.Helper()
	settings, err := json.Marshal(order{
		Postgres: config.Postgres, Brokers: config.Brokers, Source: config.Source, PositionsTopic: config.PositionsTopic, Topic: w.topic,
		Delivery: config.Delivery, TransactionRecords: config.TransactionRecords, TransactionEvery: config.TransactionEvery,
		SenderTimeout: config.SenderTimeout, ConfirmEvery: config.ConfirmEvery, MaxBufferBytes: config.MaxBufferBytes, At: at, After: after,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	p := &process{w: w, cmd: exec.Command(executable)}
	p.cmd.Env = append(os.Environ(), childVariable+"="+string(settings))
	p.cmd.Stderr = w.t.Output()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	p.kill = sync.OnceFunc(func() {
		_ = p.cmd.Process.Kill() // it may be dead
		_ = p.cmd.Wait()
	})
	w.t.Cleanup(p.kill)
	return p
}

func (p *process) signal(s syscall.Signal) {
	p.w.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.w.t.Fatal(err)
	}
}

// dies waits for the process to kill itself.
func (p *process) dies() {
	p.w.t.Helper()
	dead := make(chan error, 1)
	go func() { dead <- p.cmd.Wait() }()
	select {
	case <-dead:
		if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			p.w.t.Fatalf("the relay ended by %v, not by its own hand", p.cmd.ProcessState)
		}
	case <-time.After(patience):
		p.w.t.Fatal("the relay has not come to the place where it was to die")
	}
}
