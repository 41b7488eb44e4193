// Package position keeps, in a compacted Kafka topic, how far each source has
// been published: beside the data, so that both are as durable.
package position

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// Versions of the record's format; see docs/formats/positions.md.
const (
	VersionWhole   = 1 // nothing of a transaction behind End is in Kafka
	VersionPartial = 2 // of the transaction at Commit, records are
)

// A Position says what of one source Kafka has. Everything that committed up
// to End is in Kafka, where the position is [Position.Partial] the first
// records of the transaction behind it too, and the last of all has Sequence.
type Position struct {
	Version int `json:"version"`

	// SystemID, Slot and Generation say in which log the LSNs are: LSNs of
	// another server, or of a slot made anew, do not compare with them.
	SystemID   string `json:"systemId"`
	Slot       string `json:"slot"`
	Generation int64  `json:"generation"` // counts the slots of a source from 1

	// Creating is set from before the slot is made until its start is known.
	Creating bool `json:"creating,omitempty"`

	// Commit and Index name the last record: the commit LSN of its
	// transaction and its place there, from 0. They are zero before the first.
	Commit lsn.Pos `json:"commitLsn"`
	Index  int64   `json:"index"`

	// End is the position to resume from and the highest one confirmed to
	// PostgreSQL: the end LSN of the last transaction, or a later one that the
	// server has said holds nothing of ours.
	End lsn.Pos `json:"endLsn"`

	Sequence int64     `json:"sequence"` // of the last record; 0 before the first
	At       time.Time `json:"at"`       // when this was written

	// EventID is the last record's event, where the position is partial: a
	// relay that goes on inside the transaction sees by it that it counts the
	// records as they were counted.
	EventID string `json:"eventId,omitempty"`

	// Transactional is set by Load where the source's last record was written
	// in a Kafka transaction, whatever became of that: a relay that writes in
	// transactions may still be at work, until it is fenced.
	Transactional bool `json:"-"`
}

// Partial reports whether of the transaction at Commit only the records up to
// Index are in Kafka. Streaming goes on from End all the same, since PostgreSQL
// sends transactions whole; what is in Kafka is then passed over.
//
// A transaction ends behind the beginning of its commit record. So End is
// beyond Commit exactly where the whole of it is covered; it equals Commit
// where the commit record follows that of the transaction before.
func (p Position) Partial() bool { return p.Commit != 0 && p.End <= p.Commit }

// Encode gives the record's value. Only a partial position needs the later
// version, so that a relay of before it can go on from all others.
func (p Position) Encode() ([]byte, error) {
	if p.Version = VersionWhole; p.Partial() {
		p.Version = VersionPartial
	}
	return json.Marshal(p)
}

// Decode reads a record's value. A later version than ours is refused: it may
// mean more than we see.
func Decode(b []byte) (Position, error) {
	var p Position
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("decode position: %w", err)
	}
	if p.Version < VersionWhole || p.Version > VersionPartial {
		return p, fmt.Errorf("decode position: version %d, this relay reads up to %d; run the relay that wrote it, or a later one", p.Version, VersionPartial)
	}
	if p.Generation < 1 || p.Sequence < 0 || p.Index < 0 || p.SystemID == "" || p.Slot == "" ||
		p.Partial() != (p.Version == VersionPartial) {
		return p, fmt.Errorf("decode position: %s is incomplete or contradicts itself", b)
	}
	return p, nil
}
