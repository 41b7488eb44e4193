package relay

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/relay/pgoutput"
)

// emitted is a transactional message as the stream gives it.
func emitted(prefix string, content []byte) []byte {
	b := append([]byte{byte(pgoutput.KindMessage), 1}, 0, 0, 0, 0x16, 0xb3, 0x74, 0xd8, 0x48)
	b = append(append(b, prefix...), 0)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(content))), content...)
}

func TestAForeignMessageCostsNothing(t *testing.T) {
	s := &session{cfg: Config{MessagePrefix: "walpost.outbox"}}
	m := emitted("walpost.outbox.", make([]byte, 1000))
	if n := testing.AllocsPerRun(100, func() {
		if err := s.message(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a foreign message costs %v allocations, want 0", n)
	}
}

// TestAnEnvelopeCostsWhatItsRowsWould makes records of rows and of the same
// events in an envelope: checking and reading them allocates nothing more.
func TestAnEnvelopeCostsWhatItsRowsWould(t *testing.T) {
	const n = 10 * slabRecords
	e := envelope.Event{
		Topic: "user.created", AggregateType: "user", AggregateID: "42", Type: "UserCreated", AggregateVersion: 1,
		Headers: []envelope.Header{{Name: "requestId", Value: "r1"}}, Payload: fmt.Appendf(nil, `{"note":"%0390d"}`, 7),
	}
	b := envelope.AppendStart(nil)
	for i := range n {
		previous := &e
		if i == 0 {
			previous = nil
		}
		b = envelope.AppendEvent(b, previous, &e)
	}

	s := &session{router: router{source: "userdb", generation: 1}}
	rows := testing.AllocsPerRun(10, func() {
		s.row = row{Event: e, json: []byte(`{"requestId": "r1"}`)}
		s.row.Headers = nil
		for i := range int64(n) {
			if _, err := s.router.route(&s.row, 1, i, i+1); err != nil {
				t.Fatal(err)
			}
		}
	})
	packed := testing.AllocsPerRun(10, func() {
		if _, err := s.check(b, time.Now()); err != nil {
			t.Fatal(err)
		}
		r, err := envelope.NewReader(b)
		if err != nil {
			t.Fatal(err)
		}
		s.row = row{}
		read := int64(0)
		for ; ; read++ {
			ok, err := r.Next(&s.row.Event)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if _, err := s.router.route(&s.row, 1, read, read+1); err != nil {
				t.Fatal(err)
			}
		}
		if read != n {
			t.Fatalf("%d events were read, want %d", read, n)
		}
	})
	// The slabs' ends fall differently, and each kind has a buffer of its own.
	if packed > rows+4 {
		t.Errorf("%d events cost %v allocations in an envelope and %v as rows", n, packed, rows)
	}
}

// TestWhereAnEventGoes routes by the topic. Only the row that holds an
// envelope is anything else than its topic says.
func TestWhereAnEventGoes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		topic, what string
		packed      bool
		want        string
	}{
		"a topic":                        {topic: "user.created", what: "UserCreated", want: "user.created"},
		"no topic":                       {what: "UserCreated", want: UnknownTopic},
		"an envelope":                    {what: envelope.RowType, packed: true},
		"the envelope's type, a topic":   {topic: "user.created", what: envelope.RowType, want: "user.created"},
		"almost the envelope's type":     {what: envelope.RowType + "s", want: UnknownTopic},
		"an envelope inside an envelope": {what: envelope.RowType, packed: true, want: UnknownTopic}, // unpack does not look
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := row{Event: envelope.Event{Topic: tt.topic, Type: tt.what, AggregateID: "42"}}
			if r.packed() != tt.packed {
				t.Errorf("packed() = %t, want %t", r.packed(), tt.packed)
			}
			if tt.want == "" {
				return
			}
			o := router{source: "userdb"}
			record, err := o.route(&r, 1, 0, 1)
			if err != nil || record.Topic != tt.want {
				t.Errorf("route: topic %q, %v, want %q", record.Topic, err, tt.want)
			}
		})
	}
}
