package waybill

import (
	"crypto/rand"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// ID is a UUID (RFC 9562). NewID makes version 7, which sorts by time; DerivedID makes version 8 from a key.
type ID [16]byte

// NewID returns a version 7 UUID for the given time with 74 random bits.
func NewID(now time.Time) ID {
	var id ID
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16)
	_, _ = rand.Read(id[6:]) // crypto/rand.Read never fails: it aborts the process instead
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// DerivedID returns the version 8 UUID of the SHA-256 of the length-prefixed parts: equal parts, equal id. It is how
// an idempotency key becomes a decision id without a table of its own.
func DerivedID(parts ...string) ID {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	id := ID(h.Sum(nil)[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseID reads the 36-character form; field names the input in the error.
func ParseID(field, s string) (ID, error) {
	var id ID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, InvalidField(field, "is not an id; write it as 0198f2c4-7c1e-7e00-8000-000000000001")
	}
	compact := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(id[:], []byte(compact)); err != nil {
		return ID{}, InvalidField(field, "is not an id; write it as 0198f2c4-7c1e-7e00-8000-000000000001")
	}
	return id, nil
}

// IsZero reports whether the id is unset.
func (id ID) IsZero() bool { return id == ID{} }

// String returns the 36-character lower-case form.
func (id ID) String() string {
	var b [36]byte
	hex.Encode(b[:8], id[:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:], id[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// MarshalText makes ids read as text in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads the 36-character form.
func (id *ID) UnmarshalText(b []byte) error {
	v, err := ParseID("id", string(b))
	*id = v
	return err
}

// Value stores the id in a uuid column.
func (id ID) Value() (driver.Value, error) { return id.String(), nil }

// Scan reads a uuid column; NULL gives the zero id.
func (id *ID) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		*id = ID{}
		return nil
	case string:
		return id.UnmarshalText([]byte(v))
	case []byte:
		if len(v) == 16 {
			*id = ID(v)
			return nil
		}
		return id.UnmarshalText(v)
	}
	return fmt.Errorf("scan id from %T", src)
}
