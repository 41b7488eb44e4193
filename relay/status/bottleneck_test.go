package status

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	reader := func(waits map[string]int) *Reader { return &Reader{PID: 1, Waits: waits} }
	idle, writes := map[string]int{"WalSenderWaitForWAL": 9, "CPU": 1}, map[string]int{"WalSenderWriteData": 7, "CPU": 3}
	tests := map[string]struct {
		status Status
		want   string
	}{
		"lost":                      {Status{Lost: "slot is gone", Reader: reader(idle)}, Lost},
		"nobody reads":              {Status{}, Relay},
		"paused":                    {Status{Reader: reader(writes), Ops: &Ops{Paused: true}}, Paused},
		"waits for log":             {Status{Reader: reader(idle), LagSeconds: new(0.1)}, None},
		"waits for log, of 17":      {Status{Reader: reader(map[string]int{"WalSenderWaitForWal": 3})}, None},
		"waits for log, old events": {Status{Reader: reader(idle), LagSeconds: new(5.0)}, Kafka},
		"writes, nobody to ask":     {Status{Reader: reader(writes)}, Reading},
		"writes, buffer full":       {Status{Reader: reader(writes), Ops: &Ops{Buffered: 60, Limit: 64}}, Kafka},
		"writes, buffer near empty": {Status{Reader: reader(writes), Ops: &Ops{Buffered: 2, Limit: 64}}, Relay},
		"decodes":                   {Status{Reader: reader(map[string]int{"CPU": 8, "WalSenderWriteData": 2})}, Walsender},
		"reads what it has spilled": {Status{Reader: reader(map[string]int{"ReorderBufferRead": 8, "WalSenderWriteData": 2})}, Walsender},
		"waits for a standby":       {Status{Reader: reader(map[string]int{"WaitForStandbyConfirmation": 8})}, Standby},
		"gone while it was watched": {Status{Reader: reader(nil)}, None},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.status.decide()
			if tt.status.Bottleneck != tt.want || tt.status.Why == "" || tt.want != None && tt.status.Next == "" {
				t.Errorf("bottleneck %q (%s), next %q, want %q", tt.status.Bottleneck, tt.status.Why, tt.status.Next, tt.want)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	got := metrics("# HELP a b\n# TYPE a counter\na{topic=\"x y\"} 1\na{topic=\"z\"} 2.5e+01\n\nb 3\nno number\n")
	if diff := cmp.Diff(map[string]float64{"a": 26, "b": 3}, got); diff != "" {
		t.Error(diff)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	s := Status{
		Source: "userdb", Slot: "outbox_userdb", Server: 0x2000, Confirmed: 0x1000, Stored: 0x1000, Sequence: 42, Generation: 1,
		Reader: &Reader{PID: 7, Application: "walpost", Client: "10.0.0.1:5000", Waits: map[string]int{"CPU": 1, "WalSenderWriteData": 39}},
		Ops:    &Ops{Ready: true, Streaming: true, Buffered: 2, Limit: 64, LagSeconds: 0.5}, LagBytes: 4096, LagSeconds: new(0.5), WALStatus: "reserved", Retained: 32 << 20, SafeBytes: new(int64(1 << 30)),
		WALRate: 1000, ReadRate: 500, EventRate: 3,
	}
	s.decide()
	var b strings.Builder
	if _, err := s.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	want := `source       userdb, slot outbox_userdb (reserved)
relay        process 7 of PostgreSQL, "walpost" from 10.0.0.1:5000
             ready, 2 of 64 bytes buffered, 0 sessions restarted, 0 dead letters
positions    server 0/2000, slot 0/1000, Kafka 0/1000
sequence     42, generation 1
lag          4096 B, 0.5 s, events unknown
log kept     32 MB, 1024 MB more before the slot may be lost
rates        3 events/s published, log 1000 B/s written and 500 B/s confirmed
walsender    CPU 1, WalSenderWriteData 39
bottleneck   relay: the walsender waited for the relay to read in 97 % of looks, and 2 of 64 buffered bytes wait for Kafka
             -> give the relay more CPU
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
