package inbox_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

// set gives r with another value of a header, or without it.
func set(r *kgo.Record, name, value string) *kgo.Record {
	var headers []kgo.RecordHeader
	for _, h := range r.Headers {
		switch {
		case h.Key != name:
			headers = append(headers, h)
		case value != "":
			headers = append(headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
		}
	}
	r.Headers = headers
	return r
}

func TestPolicies(t *testing.T) {
	payload := func(r *kgo.Record, s string) *kgo.Record { r.Value = []byte(s); return r }
	offending := map[string]func(w *world) *kgo.Record{
		"unknown type":       func(w *world) *kgo.Record { return set(w.event("a", 2), cloudevent.HeaderType, "Leapt") },
		"no CloudEvent":      func(w *world) *kgo.Record { return set(w.event("a", 2), cloudevent.HeaderSpecVersion, "") },
		"no headers at all":  func(w *world) *kgo.Record { return &kgo.Record{Topic: w.topic, Key: []byte("a"), Value: []byte("raw")} },
		"payload not a step": func(w *world) *kgo.Record { return payload(w.event("a", 2), `{"N":"two"}`) },
		"newer schema": func(w *world) *kgo.Record {
			r := w.event("a", 2)
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "schemaVersion", Value: []byte("9")})
			return r
		},
	}
	for name, offender := range offending {
		policy := func(c *inbox.Config) *inbox.Policy {
			if name == "unknown type" {
				return &c.Unknown
			}
			return &c.Undecodable
		}
		begin := func(t *testing.T, p inbox.Policy) (*world, *inbox.Inbox, func() error) {
			w := newWorld(t, 1)
			w.produce(t, w.event("a", 1), offender(w), w.event("a", 3), w.event("b", 1))
			config := w.config(t)
			config.Hooks = []inbox.Hook{never{t}}
			*policy(&config) = p
			in, err := inbox.New(config)
			if err != nil {
				t.Fatal(err)
			}
			if err := inbox.Handle(in, w.typed(), func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error { return effect(ctx, tx, e, "") }); err != nil {
				t.Fatal(err)
			}
			if p == inbox.Fail {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				err := in.Run(ctx)
				return w, in, func() error { return err }
			}
			return w, in, run(t, in)
		}
		t.Run(name, func(t *testing.T) {
			t.Run("skip", func(t *testing.T) {
				w, in, _ := begin(t, inbox.Skip)
				devstacktest.Wait(t, "all to be finished", limit, func() bool { return w.committed(t) == 4 })
				if s := in.Stats(); s.Skipped != 1 || s.Handled != 3 || s.Dead+s.Waiting > 0 {
					t.Errorf("Stats %+v, want 1 skipped and 3 handled", s)
				}
			})
			t.Run("dead letter", func(t *testing.T) {
				w, in, _ := begin(t, inbox.DeadLetter)
				devstacktest.Wait(t, "all to be finished", limit, func() bool { return w.committed(t) == 4 })
				s := in.Stats()
				// Without any headers nothing tells that it is of walker a.
				behind := int64(1)
				if name == "no headers at all" {
					behind = 0
				}
				if s.Dead != 1 || s.Waiting != behind || s.Handled != 3-behind || s.Retries > 0 {
					t.Errorf("Stats %+v, want 1 dead, %d waiting, no retries", s, behind)
				}
				if s := value[string](t, w, `select error from inbox_dead where state = 'dead'`); s == "" {
					t.Error("the dead letter has no error")
				}
			})
			t.Run("fail", func(t *testing.T) {
				w, in, stop := begin(t, inbox.Fail)
				err := stop()
				if err == nil || !strings.Contains(err.Error(), w.topic+"/0/1") {
					t.Errorf("Run: %v, want an error that names the record", err)
				}
				if s := in.Stats(); s.Dead+s.Skipped > 0 {
					t.Errorf("Stats %+v, want nothing dead or skipped", s)
				}
				if at := w.committed(t); at > 1 {
					t.Errorf("offset %d is committed, past the record", at)
				}
			})
		})
	}
}

// never fails the test when something is tried again that can't be mended.
type never struct{ t *testing.T }

func (n never) OnRetried(_ context.Context, e inbox.Info) { n.t.Errorf("%+v is tried again", e) }

// TestForeignEvents are what another producer of CloudEvents writes: ids that
// are unique within their source only, and no time, so that a redelivery has
// another timestamp.
func TestForeignEvents(t *testing.T) {
	w := newWorld(t, 1)
	at := time.Now()
	foreign := func(source, id string) *kgo.Record {
		at = at.Add(time.Second)
		return &kgo.Record{Topic: w.topic, Key: []byte("a"), Value: []byte(`{"N":1}`), Timestamp: at, Headers: []kgo.RecordHeader{
			{Key: "ce_specversion", Value: []byte("1.0")},
			{Key: "ce_type", Value: []byte("Stepped")},
			{Key: "ce_source", Value: []byte(source)},
			{Key: "ce_id", Value: []byte(id)},
		}}
	}
	w.produce(t, foreign("/x", "1"), foreign("/y", "1"), foreign("/x", "2"), foreign("/x", "1"), foreign("/y", "1"),
		foreign("/x", "\x00\xff"), foreign("/x", "\x00\xff"), foreign("/x", strings.Repeat("long", 5000)), foreign("/x", strings.Repeat("long", 5000)))
	in, _ := w.start(t, w.config(t), func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		_, err := tx.Exec(ctx, `insert into effects (key, n, member) values ($1, $2, '')`, e.Source, len(e.ID))
		return err
	})
	devstacktest.Wait(t, "all to be finished", limit, func() bool { return w.committed(t) == 9 })
	if got := value[string](t, w, `select string_agg(key || n, ' ' order by pos) from effects`); got != "/x1 /y1 /x1 /x2 /x20000" {
		t.Errorf("effects %s", got)
	}
	if s := in.Stats(); s.Duplicates != 4 {
		t.Errorf("Stats %+v, want 4 duplicates", s)
	}
}
