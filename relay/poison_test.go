package relay_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/relay"
)

// A poison is an event, or what should have been one, that can't be published.
type poison struct {
	write  func(f *fixture, s script, id outbox.ID)
	reason string
	id     bool   // it is the event's id that the error and the letter name
	says   string // in the error
	next   string // what the error tells to type
	topic  func(*fixture) string
}

const rawRow = `insert into outbox (id, topic, aggregate_type, aggregate_id, aggregate_version, type, payload, headers) values ($1, $2, 'user', '42', $3, 'UserCreated', $4, $5)`

// poisons are all kinds. Each is one event of the sequence.
func poisons() map[string]poison {
	ours := func(f *fixture) string { return f.topic }
	nowhere := func(*fixture) string { return "" }
	raw := func(topic func(*fixture) string, version, payload, headers any) func(*fixture, script, outbox.ID) {
		return func(f *fixture, s script, id outbox.ID) {
			s.exec(rawRow, id, topic(f), version, payload, headers)
		}
	}
	named := func(name string) func(*fixture) string { return func(*fixture) string { return name } }
	const aside = "--poison=dead-letter"
	return map[string]poison{
		"NULL payload":     {raw(ours, 7, nil, nil), "invalid-row", true, "column payload is NULL", aside, ours},
		"bad headers":      {raw(ours, 7, "{}", `["a"]`), "invalid-row", true, "headers are no JSON object", aside, ours},
		"CloudEvents name": {raw(ours, 7, "{}", `{"ce_id": "x"}`), "invalid-row", true, `"ce_id"`, aside, ours},
		"negative version": {raw(ours, -7, "{}", nil), "invalid-row", true, "aggregate_version is -7", aside, ours},
		"NULL id": {func(f *fixture, s script, _ outbox.ID) {
			s.exec(rawRow, nil, f.topic, 7, "{}", nil)
		}, "invalid-row", false, "column id is NULL", aside, ours},
		"no year": {func(f *fixture, s script, id outbox.ID) {
			s.exec(`insert into outbox (id, topic, aggregate_type, aggregate_id, type, payload, created_at) values ($1, $2, 'user', '42', 'UserCreated', '{}', 'infinity')`, id, f.topic)
		}, "invalid-row", true, "created_at", aside, ours},
		"a topic's name": {raw(named("no such topic!"), 7, "{}", nil), "topic-name", true, "can't be a topic's name", "correct the topic's name", named("no such topic!")},
		"the relay's topic": {func(f *fixture, s script, id outbox.ID) {
			s.exec(rawRow, id, f.config.PositionsTopic, 7, "{}", nil)
		}, "topic-name", true, "it holds the relay's positions", "correct the topic's name", func(f *fixture) string { return f.config.PositionsTopic }},
		"a topic Kafka refuses": {func(f *fixture, s script, id outbox.ID) {
			s.exec(rawRow, id, strings.ReplaceAll(f.topic, ".", "_"), 7, "{}", nil) // collides
		}, "topic-missing", true, "the broker refuses to make it", "kafka-topics.sh", func(f *fixture) string { return strings.ReplaceAll(f.topic, ".", "_") }},
		"too large": {func(f *fixture, s script, id outbox.ID) {
			s.exec(rawRow, id, f.topic, 7, noise(30_000), nil)
		}, "too-large", true, "MESSAGE_TOO_LARGE", "max.message.bytes", ours},
		"tomorrow's": {func(f *fixture, s script, id outbox.ID) {
			s.exec(`insert into outbox (id, topic, aggregate_type, aggregate_id, type, payload, created_at) values ($1, $2, 'user', '42', 'UserCreated', '{}', now() + interval '1 day')`, id, f.topic)
		}, "timestamp", true, "INVALID_TIMESTAMP", "message.timestamp.type", ours},
		"no envelope": {func(_ *fixture, s script, id outbox.ID) {
			s.exec(insertPacked, id, []byte("{}"))
		}, "invalid-envelope", true, "envelope", aside, nowhere},
		"a message": {func(_ *fixture, s script, _ outbox.ID) {
			s.exec(emit, outbox.DefaultPrefix, []byte("{}"))
		}, "invalid-message", false, "envelope", "--skip-message=", nowhere},
	}
}

// noise gives bytes that can't be compressed.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// poisonFixture lets rows in that no outbox has, and makes small topics.
func poisonFixture(t *testing.T) (*fixture, *prometheus.Registry, *output) {
	t.Helper()
	f := newFixture(t)
	if _, err := f.conn.Exec(t.Context(), `alter table outbox alter column id drop not null, alter column payload drop not null`); err != nil {
		t.Fatal(err)
	}
	registry, out := prometheus.NewRegistry(), &output{to: t.Output()}
	f.config.Metrics, f.config.Log = registry, slog.New(slog.NewTextHandler(out, nil))
	f.config.TopicPartitions = 1
	f.config.DeadLetterTopic = "_" + f.config.Source + ".dead"
	f.config.Topics = []relay.Topic{{Name: f.topic, Config: map[string]string{"max.message.bytes": "20000"}}}
	return f, registry, out
}

// An output is a log that can be read.
type output struct {
	to io.Writer
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b.Write(b)
	return o.to.Write(b)
}

func (o *output) count(text string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Count(o.b.String(), text)
}

// records of a topic, as a consumer of committed ones sees them, up to its end.
func (f *fixture) all(t *testing.T, topic string) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.config.Brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ends, err := kadm.NewClient(client).ListCommittedOffsets(ctx, topic)
	if err != nil || ends.Error() != nil {
		t.Fatal(err, ends.Error())
	}
	left := make(map[int32]int64)
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	var records []*kgo.Record
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("read topic %s to its end: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				records = append(records, r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return records
}

// sequences of records that are events.
func sequences(t *testing.T, records []*kgo.Record) (list []int64) {
	t.Helper()
	for _, r := range records {
		e, err := cloudevent.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e.Sequence)
	}
	return list
}

func value(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// letters gives relay_dead_letters_total by reason, where there are any.
func letters(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]float64)
	for _, family := range families {
		if family.GetName() != "relay_dead_letters_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if n := m.GetCounter().GetValue(); n > 0 {
				counts[m.GetLabel()[0].GetValue()] = n
			}
		}
	}
	return counts
}

// stored waits until the stored position covers n events.
func (f *fixture) stored(t *testing.T, registry *prometheus.Registry, n int) {
	t.Helper()
	devstacktest.Wait(t, fmt.Sprintf("position %d", n), time.Minute, func() bool { return gauge(t, registry, "relay_position_sequence") >= float64(n) })
}

// TestAPoisonHaltsTheRelayAndCanBeSetAside has each kind of poison between
// others. The relay halts in front of it, each time it is started, with an
// error that names it; nothing behind it is in Kafka. With dead letters it goes
// on, and the letter has the number that is missing.
func TestAPoisonHaltsTheRelayAndCanBeSetAside(t *testing.T) {
	for name, p := range poisons() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, registry, out := poisonFixture(t)
			id := outbox.NewID()
			stop := f.start(t)
			f.write(t, f.event("42", 1))
			f.stored(t, registry, 1)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			f.transaction(t, func(s script) {
				s.row(f.event("42", 2))
				p.write(f, s, id)
				s.row(f.event("42", 4))
			})
			f.write(t, f.event("42", 5))
			for range 2 {
				f.config.Metrics = nil
				err := f.fails(t)
				names := p.says
				if p.id {
					names = id.String()
				}
				for _, want := range []string{names, p.says, p.next, "transaction "} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("Run: %v, want %q in it", err, want)
					}
				}
			}
			if got := sequences(t, f.all(t, f.topic)); slices.Max(got) > 2 || !slices.IsSorted(got) {
				t.Errorf("the topic has sequences %v before the poison, number 3, is dealt with", got)
			}

			registry = prometheus.NewRegistry()
			f.config.Metrics, f.config.Poison = registry, relay.DeadLetter
			stop = f.start(t)
			f.stored(t, registry, 5)
			if got := letters(t, registry); len(got) != 1 || got[p.reason] != 1 {
				t.Errorf("relay_dead_letters_total is %v, want one for %s", got, p.reason)
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			registry = prometheus.NewRegistry()
			f.config.Metrics = registry
			stop = f.start(t)
			f.write(t, f.event("42", 6))
			f.stored(t, registry, 6)
			if err := stop(); err != nil {
				t.Fatal(err)
			}

			got := slices.Compact(sequences(t, f.all(t, f.topic)))
			if slices.Sort(got); !slices.Equal(slices.Compact(got), []int64{1, 2, 4, 5, 6}) {
				t.Errorf("the topic has sequences %v, want 1 2 4 5 6", got)
			}
			dead := f.all(t, f.config.DeadLetterTopic)
			if len(dead) != 1 {
				t.Fatalf("%d dead letters, want 1", len(dead))
			}
			letter, err := cloudevent.Decode(dead[0])
			if err != nil {
				t.Fatal(err)
			}
			if letter.Sequence != 3 || value(dead[0], "walpost_reason") != p.reason || value(dead[0], "walpost_topic") != p.topic(f) ||
				!strings.Contains(value(dead[0], "walpost_error"), p.says) || p.id && letter.ID != id.String() {
				t.Errorf("the dead letter is %+v, want number 3, id %v, for %s: %q", letter, id, p.reason, p.says)
			}
			if out.count("event goes to the dead-letter topic") != 1 || out.count("id="+letter.ID) == 0 {
				t.Error("the log does not name the dead letter, once")
			}
		})
	}
}

// TestAnyNumberOfPoisonsInEitherDelivery writes all kinds among others, several
// in a transaction, and stops the relay in the middle, each time when a letter
// is in Kafka and before it knows. Everything comes: to the topic in order, and
// each poison to the dead letters; with exactly-once each once.
func TestAnyNumberOfPoisonsInEitherDelivery(t *testing.T) {
	for _, delivery := range []relay.Delivery{relay.AtLeastOnce, relay.ExactlyOnce} {
		t.Run(string(delivery), func(t *testing.T) {
			f, registry, _ := poisonFixture(t)
			f.config.Poison, f.config.Delivery = relay.DeadLetter, delivery
			stop := f.start(t)
			f.write(t, f.event("42", 1)) // the topic, before one that collides with it
			f.stored(t, registry, 1)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			kinds := poisons()
			good, bad, sequence := []int64{1}, []int64(nil), int64(1)
			want := make(map[int64]string)
			for name := range kinds {
				f.transaction(t, func(s script) {
					for _, kind := range []string{name, "", "bad headers", "", ""} {
						sequence++
						if kind == "" {
							good = append(good, sequence)
							s.row(f.event("42", sequence))
							continue
						}
						bad = append(bad, sequence)
						want[sequence] = kinds[kind].reason
						kinds[kind].write(f, s, outbox.NewID())
					}
				})
			}
			for _, n := range []int{1, 7} {
				config := f.config
				ctx, cancel := context.WithCancel(t.Context())
				config.Metrics, config.Kafka = nil, []kgo.Opt{kgo.WithHooks(&stopper{f.config.DeadLetterTopic, n, cancel})}
				r, err := relay.New(config)
				if err != nil {
					t.Fatal(err)
				}
				if err := r.Run(ctx); err != nil {
					t.Fatal(err)
				}
			}
			registry = prometheus.NewRegistry()
			f.config.Metrics = registry
			stop = f.start(t)
			f.stored(t, registry, int(sequence))
			if err := stop(); err != nil {
				t.Fatal(err)
			}

			check := func(topic string, want []int64) []*kgo.Record {
				records := f.all(t, topic)
				got := sequences(t, records)
				if delivery == relay.ExactlyOnce && !slices.Equal(got, want) {
					t.Errorf("topic %s has sequences %v, want %v", topic, got, want)
				}
				var first []int64 // times each is seen first
				for _, n := range got {
					if len(first) == 0 || n > first[len(first)-1] {
						first = append(first, n)
					} else if !slices.Contains(first, n) {
						t.Errorf("in topic %s, %d comes behind %d for the first time", topic, n, first[len(first)-1])
					}
				}
				if !slices.Equal(first, want) {
					t.Errorf("topic %s has sequences %v, want %v", topic, first, want)
				}
				return records
			}
			check(f.topic, good)
			for _, r := range check(f.config.DeadLetterTopic, bad) {
				e, err := cloudevent.Decode(r)
				if err != nil {
					t.Fatal(err)
				}
				if reason := value(r, "walpost_reason"); reason != want[e.Sequence] {
					t.Errorf("number %d is dead for %s, want %s", e.Sequence, reason, want[e.Sequence])
				}
			}
		})
	}
}

// TestADeadLetterIsCutToFit sets aside a payload that the dead-letter topic
// can't take either.
func TestADeadLetterIsCutToFit(t *testing.T) {
	f, registry, _ := poisonFixture(t)
	f.config.Poison = relay.DeadLetter
	f.config.Topics = append(f.config.Topics, relay.Topic{Name: f.config.DeadLetterTopic, Config: map[string]string{"max.message.bytes": "10000"}})
	stop := f.start(t)
	payload := noise(30_000)
	long := strings.Repeat("k", 15_000)
	f.transaction(t, func(s script) {
		s.exec(rawRow, outbox.NewID(), f.topic, 1, payload, nil)
		s.exec(`insert into outbox (id, topic, aggregate_type, aggregate_id, type, payload) values ($1, $2, 'user', $3, 'UserCreated', '{}')`, outbox.NewID(), f.topic, long)
	})
	f.stored(t, registry, 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	dead := f.all(t, f.config.DeadLetterTopic)
	if len(dead) != 2 {
		t.Fatalf("%d dead letters, want 2", len(dead))
	}
	if r := dead[0]; value(r, "walpost_payload") != "cut" || value(r, "walpost_payload_bytes") != "30000" || len(r.Value) < 8000 || !bytes.HasPrefix(payload, r.Value) {
		t.Errorf("a payload of 30000 bytes is %q with %d of %s bytes, want cut to what fits", value(r, "walpost_payload"), len(r.Value), value(r, "walpost_payload_bytes"))
	}
	if r := dead[1]; value(r, "walpost_headers") != "cut" || value(r, "walpost_payload") != "whole" || string(r.Value) != "{}" || len(r.Key) > 1024 || !strings.HasPrefix(long, string(r.Key)) {
		t.Errorf("with a key of 15000 bytes the payload is %s and the headers %s, with a key of %d", value(r, "walpost_payload"), value(r, "walpost_headers"), len(r.Key))
	}
}

// TestAStrayMessageIsSetAsideOnce sets a message aside that belongs to no
// transaction, and knows it again when PostgreSQL sends it again.
func TestAStrayMessageIsSetAsideOnce(t *testing.T) {
	f, _, _ := poisonFixture(t)
	f.config.Poison = relay.DeadLetter
	stop := f.start(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.write(t, f.event("42", 1))
	// The commit record begins directly behind the message.
	f.transaction(t, func(s script) {
		s.row(f.event("42", 3))
		s.exec(`select pg_logical_emit_message(false, 'walpost.outbox', 'stray')`)
	})
	config := f.config
	ctx, cancel := context.WithCancel(t.Context())
	config.Metrics, config.Kafka = nil, []kgo.Opt{kgo.WithHooks(&stopper{f.config.DeadLetterTopic, 1, cancel})}
	r, err := relay.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	f.config.Metrics = registry
	stop = f.start(t)
	f.write(t, f.event("42", 4))
	f.stored(t, registry, 4)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := sequences(t, f.all(t, f.topic)); !slices.Equal(got, []int64{1, 3, 4}) {
		t.Errorf("the topic has sequences %v, want 1 3 4", got)
	}
	dead := f.all(t, f.config.DeadLetterTopic)
	if len(dead) != 1 || value(dead[0], "walpost_reason") != "invalid-message" || !slices.Equal(sequences(t, dead), []int64{2}) || string(dead[0].Value) != "stray" {
		t.Errorf("%d dead letters with sequences %v, want number 2", len(dead), sequences(t, dead))
	}
}
