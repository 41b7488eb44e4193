package outbox

import (
	"crypto/rand"
	"database/sql/driver"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// An ID is a UUID, by default of version 7 (RFC 9562, section 5.7): ids made
// later sort later, which keeps every index they stand in compact.
type ID [16]byte

// NewID makes a version 7 id of the current time in steps of a 4096th of a
// millisecond, with 62 random bits behind it. Ids made in one step are in
// random order.
func NewID() ID {
	return newID(time.Now(), ID{})
}

// newID makes an id of the time now that is greater than after, where after
// was made at the same time or before it.
func newID(now time.Time, after ID) ID {
	var id ID
	rand.Read(id[8:]) // never fails: since Go 1.24 it ends the program rather
	id[8] = id[8]&0x3f | 0x80

	// 60 bits: 48 of milliseconds, 12 of fractions (RFC 9562, section 6.2,
	// method 3), with the version nibble between the two.
	ticks := uint64(now.UnixMilli())<<12 | uint64(now.Nanosecond()%1e6)*4096/1e6
	ticks = max(ticks, after.ticks()+1)
	binary.BigEndian.PutUint64(id[:], ticks>>12<<16|0x7000|ticks&0xfff)
	return id
}

func (id ID) ticks() uint64 {
	hi := binary.BigEndian.Uint64(id[:])
	return hi>>16<<12 | hi&0xfff
}

// ParseID reads the 36 characters that [ID.String] writes, in either case.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, fmt.Errorf("parse id %q: want a UUID like 0190163d-8694-739b-aea5-966c26f8ad91", s)
	}
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return ID{}, fmt.Errorf("parse id %q: %w", s, err)
	}
	return id, nil
}

// String gives the id in 36 lower-case characters.
func (id ID) String() string {
	return string(id.Append(make([]byte, 0, 36)))
}

// Append appends what [ID.String] gives to dst, in the manner of
// strconv.AppendInt.
func (id ID) Append(dst []byte) []byte {
	dst = hex.AppendEncode(dst, id[:4])
	for _, part := range [...][]byte{id[4:6], id[6:8], id[8:10], id[10:]} {
		dst = hex.AppendEncode(append(dst, '-'), part)
	}
	return dst
}

// IsZero reports whether id is unset.
func (id ID) IsZero() bool { return id == ID{} }

// Time is when a version 7 id was made, to the millisecond.
func (id ID) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:]) >> 16))
}

// MarshalText and UnmarshalText make an ID a JSON string.
func (id ID) MarshalText() ([]byte, error) { return id.Append(nil), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}

// UUIDValue makes an ID a parameter of type uuid for pgx.
func (id ID) UUIDValue() (pgtype.UUID, error) {
	return pgtype.UUID{Bytes: id, Valid: true}, nil
}

// ScanUUID lets pgx scan a uuid column into an ID; NULL is refused.
func (id *ID) ScanUUID(v pgtype.UUID) error {
	if !v.Valid {
		return fmt.Errorf("scan id: NULL is no id")
	}
	*id = v.Bytes
	return nil
}

// Value makes an ID a parameter where only its Go type is known, as in pgx's
// simple protocol.
func (id ID) Value() (driver.Value, error) { return id.String(), nil }
