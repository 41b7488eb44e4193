package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/pgoutput"
)

// A taker is a publisher whose Kafka has every record at once.
type taker struct {
	s     *session
	taken []*kgo.Record
	alone []bool
}

func (k *taker) add(_ context.Context, _ *transaction, r *kgo.Record) {
	k.taken = append(k.taken, r)
	k.alone = append(k.alone, k.s.judge.alone.Load() == r)
	k.s.budget.give(size(r))
}
func (k *taker) commit(*transaction, lsn.Pos)               {}
func (k *taker) keepalive(lsn.Pos)                          {}
func (k *taker) interrupted(*transaction)                   {}
func (k *taker) run(context.Context, context.Context) error { return nil }
func (k *taker) finish(context.Context) error               { return nil }

// TestWhereEveryEventEnds publishes random events of every kind, among them
// those that are in Kafka from before, and holds each decision against the
// rules: the topic, the dead letters, or the end of the relay; whatever happens,
// each event takes one number, and what is refused takes it with it.
func TestWhereEveryEventEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		policy := rapid.SampledFrom([]Poison{Halt, DeadLetter}).Draw(t, "policy")
		s := &session{
			cfg:    Config{Source: "userdb", Poison: policy, DeadLetterTopic: "dead", PositionsTopic: "positions"},
			log:    slog.New(slog.DiscardHandler),
			router: router{source: "userdb", generation: 2},
			budget: budget{limit: 1 << 20},
		}
		s.judge.begin(new(lessons))
		publisher := &taker{s: s}
		s.publisher = publisher
		denied := &TopicError{Topic: "denied", Reason: reasonTopicDenied, Err: kerr.TopicAuthorizationFailed, Hint: "allow it"}
		s.topics = topics{
			cfg: s.cfg, lessons: s.judge.lessons,
			known: map[string]int64{"good": 5000, UnknownTopic: 5000, "dead": 2000},
			bad:   map[string]badTopic{"denied": {denied, time.Now().Add(time.Hour)}},
		}
		commit := lsn.Pos(7)
		s.open = &transaction{commit: commit, at: time.Unix(1_700_000_000, 0)}
		before := rapid.IntRange(0, 3).Draw(t, "in Kafka from before")
		s.open.published = int64(before)
		first := s.sequence + 1
		for i := range rapid.IntRange(1, 12).Draw(t, "events") {
			id := outbox.NewID()
			s.row = row{Event: envelope.Event{ID: id, Topic: "good", AggregateType: "user", AggregateID: "42", Type: "UserCreated", AggregateVersion: 1, Payload: []byte("{}")}, createdAt: time.Unix(1_700_000_000, 0)}
			kind := rapid.SampledFrom([]string{"good", "good", "good", "unknown", "denied", "name", "positions", "letters", "large", "convicted", "suspected", "headers"}).Draw(t, "kind")
			want, reason := "good", ""
			alone := false
			bad := func(r string) { want, reason, alone = "dead", r, true }
			switch kind {
			case "unknown":
				s.row.Topic, want = "", UnknownTopic
			case "denied":
				s.row.Topic = "denied"
				bad(reasonTopicDenied)
			case "name":
				s.row.Topic = "no such topic!"
				bad(reasonTopicName)
			case "positions":
				s.row.Topic = "positions"
				bad(reasonTopicName)
			case "letters":
				s.row.Topic = "dead"
				if policy == DeadLetter {
					bad(reasonTopicName)
				} else {
					want = "dead"
				}
			case "large":
				s.row.Payload = make([]byte, 5000)
				bad(reasonTooLarge)
			case "convicted":
				s.judge.verdicts = map[string]verdict{fmt.Sprintf("2/%v/%d", commit, s.open.records): {id: id.String(), err: kerr.InvalidTimestamp}}
				bad(reasonTimestamp)
			case "suspected":
				s.judge.suspect = suspect{topic: "good", first: 1, bytes: 1 << 20}
				alone = true
			case "headers":
				s.row.json = []byte(`["a"]`)
				bad(reasonRow)
			}
			if i < before {
				s.from.EventID = id.String()
			}
			sequence, records, taken := s.sequence, s.open.records, len(publisher.taken)
			record, err := s.router.route(&s.row, commit, records, sequence+1)
			if err != nil {
				err = s.invalid(t.Context(), &s.row, &poisonError{reasonRow, &RowError{ID: id, Commit: commit, Err: err}})
			} else {
				err = s.publish(t.Context(), record)
			}
			s.judge.suspect, s.judge.verdicts = suspect{}, nil

			if i < before {
				if err != nil || s.sequence != sequence || s.open.records != records+1 || len(publisher.taken) != taken {
					t.Fatalf("an event that is in Kafka is published again, or ends with %v", err)
				}
				continue
			}
			if reason != "" && policy == Halt {
				rowError, isRow := errors.AsType[*RowError](err)
				recordError, isRecord := errors.AsType[*RecordError](err)
				if !permanent(err) || isRow == isRecord || isRow && rowError.ID != id || isRecord && (recordError.ID != id.String() || recordError.Commit != commit || recordError.Hint == "") {
					t.Fatalf("a poison (%s) ends with %v, want an error that names the event and what to do", kind, err)
				}
				if s.sequence != sequence || len(publisher.taken) != taken {
					t.Fatalf("a poison (%s) is published, or takes a number, although the relay halts", kind)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s ends with %v", kind, err)
			}
			if s.sequence != sequence+1 || s.open.records != records+1 || len(publisher.taken) != taken+1 {
				t.Fatalf("%s does not take one number", kind)
			}
			got := publisher.taken[taken]
			if got.Topic != want || header(got, headerReason) != reason || publisher.alone[taken] != alone || eventID(got) != id.String() || sequenceOf(got) != s.sequence ||
				header(got, cloudevent.HeaderPosition) != fmt.Sprintf("2/%v/%d", commit, records) {
				t.Fatalf("%s goes to %s for %q, alone: %t; want %s for %q, %t, with its id and number", kind, got.Topic, header(got, headerReason), publisher.alone[taken], want, reason, alone)
			}
		}
		if s.sequence-first+1 != int64(len(publisher.taken)) {
			t.Fatalf("%d records with numbers up to %d", len(publisher.taken), s.sequence)
		}
	})
}

// TestDeadLettersFit makes letters of any record for any limit: each is an
// event that says what was left out of it.
func TestDeadLettersFit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := int64(rapid.IntRange(20_000, 60_000).Draw(t, "limit"))
		length := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(0, 70_000))
		e := cloudevent.Event{
			ID: outbox.NewID().String(), Source: "userdb", Type: "UserCreated", Subject: strings.Repeat("s", length.Draw(t, "key")),
			Time: time.Unix(1_700_000_000, 0).UTC(), Sequence: 17, Position: "1/0/7/0", Data: bytes.Repeat([]byte("d"), length.Draw(t, "payload")),
			Headers: []cloudevent.Header{{Name: "note", Value: strings.Repeat("n", length.Draw(t, "header"))}, {Name: headerReason, Value: "a writer's"}},
		}
		record := cloudevent.Record("user.created", &e)
		p := &poisonError{reasonTooLarge, errors.New(strings.Repeat("e", length.Draw(t, "error")))}
		whole := batchBytes(record)
		letter := deadLetter(record, "dead", p, limit)
		if n := batchBytes(letter); n > limit {
			t.Fatalf("the letter has %d bytes, %d are allowed", n, limit)
		}
		got, err := cloudevent.Decode(letter)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != e.ID || got.Sequence != 17 || got.Position != e.Position || header(letter, headerReason) != reasonTooLarge || header(letter, headerTopic) != "user.created" || letter.Timestamp.Equal(record.Timestamp) {
			t.Fatalf("the letter is %+v", got)
		}
		payload := "whole"
		switch {
		case len(got.Data) == 0 && len(e.Data) > 0:
			payload = "omitted"
		case len(got.Data) < len(e.Data):
			payload = "cut"
		}
		if header(letter, headerPayload) != payload || !bytes.HasPrefix(e.Data, got.Data) || header(letter, headerPayloadBytes) != fmt.Sprint(len(e.Data)) {
			t.Fatalf("the payload is %q with %d of %d bytes, want %s", header(letter, headerPayload), len(got.Data), len(e.Data), payload)
		}
		headers := "whole"
		if got.Get("note") != e.Headers[0].Value || got.Subject != e.Subject || string(letter.Key) != e.Subject {
			headers = "cut"
		}
		if header(letter, headerHeaders) != headers {
			t.Fatalf("the headers are %q, want %s", header(letter, headerHeaders), headers)
		}
		if whole+2500 <= limit && (payload != "whole" || headers != "whole") {
			t.Fatalf("a record of %d bytes is cut to a limit of %d", whole, limit)
		}
	})
}

// TestBatchBytesAreTheClients compares our count with the client's: it may be
// larger by the few bytes that depend on the protocol's version, never smaller.
func TestBatchBytesAreTheClients(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	for _, n := range []int{600, 3000, 20_000} {
		e := cloudevent.Event{ID: "1", Source: "s", Type: "t", Time: time.Unix(1, 0), Sequence: 1, Data: make([]byte, n), Subject: strings.Repeat("k", 300)}
		for less, fits := range map[int64]bool{0: true, 5: false} {
			r := cloudevent.Record("a", &e)
			limit := batchBytes(r) - less
			client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ProducerBatchMaxBytes(int32(limit)))
			if err != nil {
				t.Fatal(err)
			}
			err = client.ProduceSync(t.Context(), r).FirstErr()
			client.Close()
			if got := err == nil; got != fits {
				t.Errorf("a payload of %d bytes within %d, %d less than we count: %v, want it to fit: %t", n, limit, less, err, fits)
			}
		}
	}
}

// TestARowThatCanNotBeReadKeepsWhatCan salvages rows with columns missing, of
// another form, or NULL.
func TestARowThatCanNotBeReadKeepsWhatCan(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := &layout{}
		for i := range l.index {
			l.index[i] = i
		}
		l.jsonb[colHeaders] = true
		values := make([]pgoutput.Column, rapid.IntRange(0, columnCount).Draw(t, "columns"))
		for i := range values {
			values[i] = pgoutput.Column{
				Format: rapid.SampledFrom([]pgoutput.Format{pgoutput.Binary, pgoutput.Null, pgoutput.Text}).Draw(t, "format"),
				Data:   rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "data"),
			}
		}
		var r row
		l.salvage(values, &r)
		s := &session{router: router{source: "userdb", generation: 1}}
		record, err := s.remains(&r, &transaction{commit: 7, at: time.Unix(1_700_000_000, 0)})
		if err != nil {
			t.Fatal(err)
		}
		e, err := cloudevent.Decode(record)
		if err != nil {
			t.Fatal(err)
		}
		if len(values) > colPayload && values[colPayload].Format == pgoutput.Binary && !bytes.Equal(e.Data, values[colPayload].Data) {
			t.Fatalf("the payload is %q, was %q", e.Data, values[colPayload].Data)
		}
		if len(values) > colID && values[colID].Format == pgoutput.Binary && len(values[colID].Data) == 16 {
			if id := outbox.ID(values[colID].Data); !id.IsZero() && e.ID != id.String() {
				t.Fatalf("the id is %s, was %v", e.ID, id)
			}
		} else if e.ID != e.Position {
			t.Fatalf("without an id it is %s, want its position, %s", e.ID, e.Position)
		}
	})
}

// TestAStrayMessageIsKnownAgain has PostgreSQL send a message again that is
// set aside, as it does where it has not been told.
func TestAStrayMessageIsKnownAgain(t *testing.T) {
	t.Parallel()
	s := &session{
		cfg: Config{Source: "userdb", Poison: DeadLetter, DeadLetterTopic: "dead", MessagePrefix: "walpost.outbox"}, log: slog.New(slog.DiscardHandler),
		router: router{source: "userdb", generation: 1}, budget: budget{limit: 1 << 20},
	}
	s.judge.begin(new(lessons))
	publisher := &taker{s: s}
	s.publisher, s.topics = publisher, topics{cfg: s.cfg, known: map[string]int64{"dead": 5000}}
	m := emitted("walpost.outbox", []byte("stray"))
	m[1] = 0 // not transactional
	for range 2 {
		if err := s.message(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if len(publisher.taken) != 1 || s.sequence != 1 || s.open != nil {
			t.Fatalf("%d dead letters, the last number is %d; want one", len(publisher.taken), s.sequence)
		}
		s.from.Commit, s.from.End = commitOf(publisher.taken[0]), 0x16_b374d848
	}
}
