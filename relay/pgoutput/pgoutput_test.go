package pgoutput_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"

	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/pgoutput"
)

var commitTime = time.Date(2026, 11, 24, 9, 30, 0, 123456000, time.UTC)

func microseconds(t time.Time) uint64 {
	return uint64(t.UnixMicro() - time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro())
}

func begin() []byte {
	b := []byte{'B'}
	b = binary.BigEndian.AppendUint64(b, 0x16_B374D848)
	b = binary.BigEndian.AppendUint64(b, microseconds(commitTime))
	return binary.BigEndian.AppendUint32(b, 777)
}

func commit() []byte {
	b := []byte{'C', 0}
	b = binary.BigEndian.AppendUint64(b, 0x16_B374D848)
	b = binary.BigEndian.AppendUint64(b, 0x16_B374D900)
	return binary.BigEndian.AppendUint64(b, microseconds(commitTime))
}

func relation() []byte {
	b := binary.BigEndian.AppendUint32([]byte{'R'}, 16_400)
	b = append(b, "public\x00outbox\x00d\x00\x02"...)
	b = append(b, "\x01id\x00"...)
	b = binary.BigEndian.AppendUint32(b, 2950)
	b = binary.BigEndian.AppendUint32(b, 0xffff_ffff)
	b = append(b, "\x00payload\x00"...)
	b = binary.BigEndian.AppendUint32(b, 17)
	return binary.BigEndian.AppendUint32(b, 0xffff_ffff)
}

func insert() []byte {
	b := binary.BigEndian.AppendUint32([]byte{'I'}, 16_400)
	return append(b, "N\x00\x03b\x00\x00\x00\x02hint\x00\x00\x00\x01x"...)
}

func message() []byte {
	b := []byte{'M', 1}
	b = binary.BigEndian.AppendUint64(b, 0x16_B374D848)
	return append(b, "prefix\x00\x00\x00\x00\x02hi"...)
}

func TestParse(t *testing.T) {
	t.Parallel()
	gotBegin, err := pgoutput.ParseBegin(begin())
	if want := (pgoutput.Begin{FinalLSN: 0x16_B374D848, CommitTime: commitTime, XID: 777}); err != nil || gotBegin != want {
		t.Errorf("ParseBegin = %+v, %v, want %+v", gotBegin, err, want)
	}
	gotCommit, err := pgoutput.ParseCommit(commit())
	if want := (pgoutput.Commit{CommitLSN: 0x16_B374D848, EndLSN: 0x16_B374D900, CommitTime: commitTime}); err != nil || gotCommit != want {
		t.Errorf("ParseCommit = %+v, %v, want %+v", gotCommit, err, want)
	}
	gotRelation, err := pgoutput.ParseRelation(relation())
	wantRelation := pgoutput.Relation{
		OID: 16_400, Namespace: "public", Name: "outbox",
		Columns: []pgoutput.RelationColumn{{Name: "id", Type: 2950}, {Name: "payload", Type: 17}},
	}
	if diff := cmp.Diff(wantRelation, gotRelation); err != nil || diff != "" {
		t.Errorf("ParseRelation: %v, -want +got:\n%s", err, diff)
	}
	gotMessage, err := pgoutput.ParseMessage(message())
	wantMessage := pgoutput.Message{Transactional: true, LSN: 0x16_B374D848, Prefix: []byte("prefix"), Content: []byte("hi")}
	if diff := cmp.Diff(wantMessage, gotMessage); err != nil || diff != "" {
		t.Errorf("ParseMessage: %v, -want +got:\n%s", err, diff)
	}
	oid, columns, err := pgoutput.ParseInsert(insert(), nil)
	want := []pgoutput.Column{
		{Format: pgoutput.Binary, Data: []byte("hi")},
		{Format: pgoutput.Null},
		{Format: pgoutput.Text, Data: []byte("x")},
	}
	if diff := cmp.Diff(want, columns); err != nil || oid != 16_400 || diff != "" {
		t.Errorf("ParseInsert: oid %d, %v, -want +got:\n%s", oid, err, diff)
	}
}

func TestDamageIsAnError(t *testing.T) {
	t.Parallel()
	parsers := map[string]struct {
		whole []byte
		parse func([]byte) error
	}{
		"begin":    {begin(), func(b []byte) error { _, err := pgoutput.ParseBegin(b); return err }},
		"commit":   {commit(), func(b []byte) error { _, err := pgoutput.ParseCommit(b); return err }},
		"relation": {relation(), func(b []byte) error { _, err := pgoutput.ParseRelation(b); return err }},
		"message":  {message(), func(b []byte) error { _, err := pgoutput.ParseMessage(b); return err }},
		"insert":   {insert(), func(b []byte) error { _, _, err := pgoutput.ParseInsert(b, nil); return err }},
	}
	for name, p := range parsers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := 1; n < len(p.whole); n++ {
				if err := p.parse(p.whole[:n]); !errors.Is(err, pgoutput.ErrTruncated) {
					t.Errorf("cut to %d bytes: error %v, want ErrTruncated", n, err)
				}
			}
			if err := p.parse(append(slices.Clip(p.whole), 0)); !errors.Is(err, pgoutput.ErrTrailing) {
				t.Errorf("a byte more: error %v, want ErrTrailing", err)
			}
			if err := p.parse(nil); err == nil {
				t.Error("empty message: no error")
			}
			if err := p.parse([]byte("?" + string(p.whole[1:]))); err == nil {
				t.Error("other kind: no error")
			}
		})
	}
}

// FuzzAgainstPglogrepl holds the decoder against pglogrepl's: what we accept
// it accepts too, with the same meaning. It accepts more, since it looks
// neither behind the last field nor at formats it does not know.
func FuzzAgainstPglogrepl(f *testing.F) {
	f.Add(begin())
	f.Add(commit())
	f.Add(relation())
	f.Add(insert())
	f.Add(message())
	f.Add([]byte("M\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\xff\xff\xff\xff"))
	f.Add([]byte("I\x00\x00\x00\x01N\x00\x01b\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var theirs pglogrepl.Message
		check := func(ourErr error, same func() bool) {
			if errors.Is(ourErr, pgoutput.ErrTruncated) || errors.Is(ourErr, pgoutput.ErrUnknown) {
				return // pglogrepl goes on, and allocates what a length says before it looks
			}
			var theirErr error
			theirs, theirErr = reference(b)
			switch {
			case ourErr == nil && theirErr != nil:
				t.Fatalf("we accept %q, pglogrepl says %v", b, theirErr)
			case ourErr == nil && !same():
				t.Fatalf("we and pglogrepl read %q differently: %#v", b, theirs)
			case ourErr != nil && theirErr == nil && !errors.Is(ourErr, pgoutput.ErrTrailing):
				t.Fatalf("pglogrepl accepts %q, we say %v", b, ourErr)
			}
		}
		switch pgoutput.KindOf(b) {
		case pgoutput.KindBegin:
			m, err := pgoutput.ParseBegin(b)
			check(err, func() bool {
				r, ok := theirs.(*pglogrepl.BeginMessage)
				return ok && lsn.Pos(r.FinalLSN) == m.FinalLSN && r.Xid == m.XID && sameTime(r.CommitTime, m.CommitTime)
			})
		case pgoutput.KindCommit:
			m, err := pgoutput.ParseCommit(b)
			check(err, func() bool {
				r, ok := theirs.(*pglogrepl.CommitMessage)
				return ok && lsn.Pos(r.CommitLSN) == m.CommitLSN && lsn.Pos(r.TransactionEndLSN) == m.EndLSN && sameTime(r.CommitTime, m.CommitTime)
			})
		case pgoutput.KindRelation:
			m, err := pgoutput.ParseRelation(b)
			check(err, func() bool { return sameRelation(theirs, m) })
		case pgoutput.KindMessage:
			m, err := pgoutput.ParseMessage(b)
			check(err, func() bool {
				r, ok := theirs.(*pglogrepl.LogicalDecodingMessage)
				return ok && r.Transactional == m.Transactional && lsn.Pos(r.LSN) == m.LSN && r.Prefix == string(m.Prefix) && string(r.Content) == string(m.Content)
			})
		case pgoutput.KindInsert:
			oid, columns, err := pgoutput.ParseInsert(b, nil)
			if err == nil && len(columns) == 0 {
				return // a row without columns: pglogrepl finds it too short
			}
			check(err, func() bool { return sameInsert(theirs, oid, columns) })
		default:
		}
	})
}

// reference is pglogrepl's parser. It slices by lengths it has not checked, so
// a panic of it counts as its refusal.
func reference(b []byte) (m pglogrepl.Message, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("pglogrepl panics")
		}
	}()
	return pglogrepl.Parse(b)
}

// sameTime compares times within 200 years of 2000: pglogrepl counts in
// nanoseconds, which overflow beyond.
func sameTime(theirs, ours time.Time) bool {
	if ours.Year() < 1800 || ours.Year() > 2200 {
		return true
	}
	return theirs.Equal(ours)
}

func sameRelation(theirs pglogrepl.Message, m pgoutput.Relation) bool {
	r, ok := theirs.(*pglogrepl.RelationMessage)
	if !ok || r.RelationID != m.OID || r.Namespace != m.Namespace || r.RelationName != m.Name || len(r.Columns) != len(m.Columns) {
		return false
	}
	for i, c := range r.Columns {
		if c.Name != m.Columns[i].Name || c.DataType != m.Columns[i].Type {
			return false
		}
	}
	return true
}

func sameInsert(theirs pglogrepl.Message, oid uint32, columns []pgoutput.Column) bool {
	r, ok := theirs.(*pglogrepl.InsertMessage)
	if !ok || r.RelationID != oid || r.Tuple == nil || len(r.Tuple.Columns) != len(columns) {
		return false
	}
	for i, c := range r.Tuple.Columns {
		if c.DataType != byte(columns[i].Format) || string(c.Data) != string(columns[i].Data) {
			return false
		}
	}
	return true
}

func TestRowsAndMessagesAllocateNothing(t *testing.T) {
	b, columns := insert(), make([]pgoutput.Column, 0, 8)
	allocs := testing.AllocsPerRun(100, func() {
		if _, _, err := pgoutput.ParseInsert(b, columns[:0]); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("ParseInsert allocates %v times a row, want 0", allocs)
	}
	foreign := message()
	allocs = testing.AllocsPerRun(100, func() {
		if m, err := pgoutput.ParseMessage(foreign); err != nil || string(m.Prefix) == "ours" {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("ParseMessage allocates %v times a message, want 0", allocs)
	}
}

func BenchmarkParseInsert(b *testing.B) {
	row, columns := insert(), make([]pgoutput.Column, 0, 8)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := pgoutput.ParseInsert(row, columns[:0]); err != nil {
			b.Fatal(err)
		}
	}
}
