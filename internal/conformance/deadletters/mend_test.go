package deadletters_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

// TestEditThenRedriveHeals: a payload that can't be decoded is mended and
// handled, with the headers it came with.
func TestEditThenRedriveHeals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	in, err := inbox.New(w.config())
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan inbox.Received[moved], 1)
	if err := inbox.Handle(in, w.typed(), func(ctx context.Context, tx pgx.Tx, e inbox.Received[moved]) error {
		received <- e
		return w.handle(ctx, tx, e)
	}); err != nil {
		t.Fatal(err)
	}
	w.run(in)
	broken := w.event("a", 7)
	broken.Value = []byte(`{"n":"seven"}`)
	broken.Headers = append(broken.Headers, kgo.RecordHeader{Key: "binary", Value: []byte{0, 0xff, 1}}, kgo.RecordHeader{Key: "empty", Value: []byte{}},
		kgo.RecordHeader{Key: "twice", Value: []byte("1")}, kgo.RecordHeader{Key: "twice", Value: []byte("2")})
	w.produce(broken)
	w.settled(1)

	ctx, letters := t.Context(), w.letters()
	id := w.list(inbox.Filter{})[0].ID
	l, err := letters.Get(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(broken.Headers, l.Headers); diff != "" {
		t.Errorf("headers of the letter differ from the record's (-record +letter):\n%s", diff)
	}
	if string(l.Payload) != string(broken.Value) || l.OriginalPayload != nil || !l.EditedAt.IsZero() {
		t.Errorf("letter = payload %s, original %s, edited at %v", l.Payload, l.OriginalPayload, l.EditedAt)
	}
	for name, edit := range map[string]inbox.Edit{
		"nothing":        {},
		"the id":         {SetHeaders: []kgo.RecordHeader{{Key: cloudevent.HeaderID, Value: []byte("x")}}},
		"the time":       {RemoveHeaders: []string{cloudevent.HeaderTime}},
		"a nameless one": {SetHeaders: []kgo.RecordHeader{{}}},
	} {
		if _, err := letters.Edit(ctx, id, edit); err == nil {
			t.Errorf("an edit that changes %s is taken", name)
		}
	}
	if same, err := letters.Get(ctx, id); err != nil || cmp.Diff(l, same, cmp.AllowUnexported(inbox.Letter{})) != "" {
		t.Errorf("refused edits changed the letter: %v\n%s", err, cmp.Diff(l, same, cmp.AllowUnexported(inbox.Letter{})))
	}

	if _, err := letters.Edit(ctx, id, inbox.Edit{Payload: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	l, err = letters.Edit(ctx, id, inbox.Edit{
		Payload: []byte(`{"n":7}`), SetHeaders: []kgo.RecordHeader{{Key: "mended", Value: []byte("by hand")}}, RemoveHeaders: []string{"twice"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if string(l.Payload) != `{"n":7}` || string(l.OriginalPayload) != string(broken.Value) || l.EditedAt.IsZero() || l.State != inbox.StateDead {
		t.Errorf("the edited letter = payload %s, original %s, edited at %v, %s", l.Payload, l.OriginalPayload, l.EditedAt, l.State)
	}
	w.redrive(inbox.Redrive{Filter: inbox.Filter{IDs: []int64{id}}})
	w.settled(1)
	equal(t, "effects", w.effects("a"), []int{7})
	e := <-received
	want := append(broken.Headers[:len(broken.Headers)-2:len(broken.Headers)-2], kgo.RecordHeader{Key: "mended", Value: []byte("by hand")})
	redriven, err := cloudevent.Decode(&kgo.Record{Topic: broken.Topic, Timestamp: broken.Timestamp, Headers: want, Value: []byte(`{"n":7}`)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(redriven, e.Event); diff != "" {
		t.Errorf("the handler received (-want +got):\n%s", diff)
	}
	if e.Topic != w.topic || e.Partition != 0 || e.Offset != broken.Offset {
		t.Errorf("received of %s/%d/%d, want %s/0/%d", e.Topic, e.Partition, e.Offset, w.topic, broken.Offset)
	}
	if _, err := letters.Edit(ctx, id, inbox.Edit{Payload: []byte("x")}); !errors.Is(err, inbox.ErrNoLetter) {
		t.Errorf("edit of a handled letter = %v, want ErrNoLetter", err)
	}
}

// TestALetterThatIsRedrivenIsNotEdited, neither when it is due later nor while
// its handler works.
func TestALetterThatIsRedrivenIsNotEdited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.plan.fail(0, 1)
	working, release := make(chan struct{}), make(chan struct{})
	w.start(w.config())
	w.produce(w.event("a", 0))
	w.settled(1)
	w.plan.mu.Lock()
	w.plan.before = func(context.Context, int) { close(working); <-release }
	w.plan.mu.Unlock()
	id := w.list(inbox.Filter{})[0].ID
	edit := inbox.Edit{Payload: []byte(`{"n":9}`)}

	w.exec("update inbox_dead set redrive_at = now() + interval '1 hour' where id = $1", id)
	if _, err := w.letters().Edit(t.Context(), id, edit); !errors.Is(err, inbox.ErrRedriven) {
		t.Errorf("edit of one that is due in an hour = %v, want ErrRedriven", err)
	}
	w.exec("update inbox_dead set redrive_at = null where id = $1", id)
	w.redrive(inbox.Redrive{Filter: inbox.Filter{IDs: []int64{id}}})
	<-working
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := w.letters().Edit(ctx, id, edit); !errors.Is(err, inbox.ErrRedriven) {
		t.Errorf("edit while the handler works = %v, want ErrRedriven at once", err)
	}
	close(release)
	w.settled(1)
	equal(t, "effects", w.effects("a"), []int{0})
}

// TestADroppedEventIsNeverHandled, not even when the group reads everything
// again; what waited behind it is.
func TestADroppedEventIsNeverHandled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.plan.fail(0, 1)
	w.plan.fail(3, 1)
	stop := w.start(w.config())
	w.produce(w.event("a", 0), w.event("a", 1), w.event("a", 2), w.event("b", 3))
	w.settled(4)
	letters := w.list(inbox.Filter{OrderingKey: "thing/a"})
	drop := inbox.Drop{Filter: inbox.Filter{OrderingKey: "thing/a"}, Reason: "ops: it never happened", Limit: 2, DryRun: true}
	would, err := w.letters().Drop(t.Context(), drop)
	if err != nil || len(would) != 2 || len(w.list(inbox.Filter{})) != 4 {
		t.Errorf("dry run = %d letters, %v, and left %d, want 2 of 4", len(would), err, len(w.list(inbox.Filter{})))
	}
	for name, bad := range map[string]inbox.Drop{
		"no reason": {Filter: drop.Filter}, "no filter": {Reason: "x"}, "a blank reason": {All: true, Reason: " "},
	} {
		if _, err := w.letters().Drop(t.Context(), bad); err == nil {
			t.Errorf("a drop with %s is taken", name)
		}
	}
	// One in the middle first: nothing begins by it.
	middle, err := w.letters().Drop(t.Context(), inbox.Drop{Filter: inbox.Filter{IDs: []int64{letters[1].ID}}, Reason: "ops: twin"})
	if err != nil || len(middle) != 1 || string(middle[0].Payload) != `{"n":1}` || len(middle[0].Headers) == 0 {
		t.Errorf("drop of one that waits = %+v, %v", middle, err)
	}
	w.settled(3 + 1)
	equal(t, "effects while the first is dead", w.effects("a"), nil)
	if _, err := w.letters().Drop(t.Context(), inbox.Drop{Filter: inbox.Filter{IDs: []int64{letters[0].ID}}, Reason: drop.Reason}); err != nil {
		t.Fatal(err)
	}
	w.settled(4)
	equal(t, "effects behind the dropped one", w.effects("a"), []int{2})
	if reasons := collect[string](w, "select dropped from inbox where dropped is not null order by \"offset\""); len(reasons) != 2 || reasons[0] != drop.Reason {
		t.Errorf("reasons kept = %q", reasons)
	}

	// Everything is delivered again.
	stop()
	admin := kadm.NewClient(w.client)
	var offsets kadm.Offsets
	offsets.AddOffset(w.topic, 0, 0, -1)
	if err := admin.CommitAllOffsets(t.Context(), w.group, offsets); err != nil {
		t.Fatal(err)
	}
	w.start(w.config())
	w.produce(w.event("a", 4))
	w.settled(5)
	equal(t, "effects of a after all is delivered again", w.effects("a"), []int{2, 4})
	if got := w.plan.called(0); got != 1 {
		t.Errorf("the dropped event's handler was called %d times, want 1", got)
	}
	if left := w.list(inbox.Filter{}); len(left) != 1 || left[0].OrderingKey != "thing/b" {
		t.Errorf("letters left: %+v, want b's", left)
	}
}

// TestList: each field of a filter selects, and pages join to the whole.
func TestList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	for n := range 5 {
		w.plan.fail(n, 1)
	}
	w.start(w.config())
	other := w.event("d", 3)
	other.Headers[3].Value = []byte("Unheard")
	w.produce(w.event("a", 0), w.event("b", 1), w.event("a", 2), other, w.event("c", 4))
	w.wait("four letters", "select count(*) = 4 from inbox_dead")
	w.exec("update inbox_dead set failed_at = now() - interval '2 hours' where ordering_key = 'thing/c'")
	hourAgo := time.Now().Add(-time.Hour)
	for name, tt := range map[string]struct {
		filter inbox.Filter
		want   string // keys, sorted
	}{
		"all":         {inbox.Filter{}, "thing/a thing/a thing/b thing/c"},
		"state":       {inbox.Filter{State: inbox.StateWaiting}, "thing/a"},
		"key":         {inbox.Filter{OrderingKey: "thing/b"}, "thing/b"},
		"type":        {inbox.Filter{Type: "Moved"}, "thing/a thing/a thing/b thing/c"},
		"other type":  {inbox.Filter{Type: "Unheard"}, ""},
		"topic":       {inbox.Filter{Topic: "elsewhere"}, ""},
		"age":         {inbox.Filter{FailedBefore: hourAgo}, "thing/c"},
		"youth":       {inbox.Filter{FailedAfter: hourAgo}, "thing/a thing/a thing/b"},
		"error":       {inbox.Filter{Error: "FAILURE of event 1"}, "thing/b"},
		"error, LIKE": {inbox.Filter{Error: "failure%event"}, ""},
		"no ids":      {inbox.Filter{IDs: []int64{}}, ""},
		"both":        {inbox.Filter{State: inbox.StateDead, OrderingKey: "thing/a"}, "thing/a"},
	} {
		var keys []string
		for after := int64(0); ; {
			page, err := w.letters().List(t.Context(), tt.filter, 2, after)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range page.Letters {
				if l.ID <= after {
					t.Errorf("%s: letter %d comes after %d", name, l.ID, after)
				}
				after, keys = l.ID, append(keys, l.OrderingKey)
			}
			if after = page.Next; after == 0 {
				break
			}
		}
		slices.Sort(keys)
		if got := strings.Join(keys, " "); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	if _, err := w.letters().List(t.Context(), inbox.Filter{State: "lost"}, 0, 0); err == nil || !strings.Contains(err.Error(), `"lost"`) {
		t.Errorf("a state that is none: %v", err)
	}
	if _, err := w.letters().List(t.Context(), inbox.Filter{}, -1, 0); err == nil {
		t.Error("a negative limit is taken")
	}
}
