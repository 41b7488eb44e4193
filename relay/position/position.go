// Package position keeps, in a compacted Kafka topic, how far each source has
// been published: beside the data, so that both are as durable.
package position

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// Version of the record's format; see docs/formats/positions.md.
const Version = 1

// A Position says what of one source Kafka has acknowledged. Everything that
// committed up to End is in Kafka, and the last of it has Sequence.
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
}

// Encode gives the record's value.
func (p Position) Encode() ([]byte, error) {
	p.Version = Version
	return json.Marshal(p)
}

// Decode reads a record's value. A later version than ours is refused: it may
// mean more than we see.
func Decode(b []byte) (Position, error) {
	var p Position
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("decode position: %w", err)
	}
	if p.Version != Version {
		return p, fmt.Errorf("decode position: version %d, this relay reads %d; run the relay that wrote it, or a later one", p.Version, Version)
	}
	if p.Generation < 1 || p.Sequence < 0 || p.Index < 0 || p.SystemID == "" || p.Slot == "" {
		return p, fmt.Errorf("decode position: %s is incomplete", b)
	}
	return p, nil
}
