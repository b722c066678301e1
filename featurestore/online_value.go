package featurestore

import (
	"bytes"
	"encoding/binary"
	"slices"

	"waybill"
)

// A value is what a home outside of the hub's memory holds under the key of a row; docs/formats/row.md draws it. It lists
// the rows of the key, the winner first: one, and behind it for a short time those that it beat, for readers who may not
// see it yet. Rows are only ever cut from its end, and then it says so. Therefore the first row that a reader may see is
// the winner among all that he may see, whatever was cut; and when he may see none, the value says whether there was none.

// The first byte of a value.
const (
	valueWhole = 1 // every row of the key that was put is in it
	valueCut   = 2 // beaten rows were cut off its end
)

// headSize is what stands before each row in a value: event time and knowledge time (i64 with the sign bit flipped), commit
// (u64), place in the commit (u32), all big-endian so that bytes compare as the winner rule does, and the row's length (u32).
const (
	headSize  = 32
	headOrder = 28 // what is compared
	headRow   = 24 // what two rows that tie have in common
)

// entry is a row of a value with its head.
type entry []byte

// appendEntry puts the head before a packed row.
func appendEntry(b []byte, p *packed, nth uint32, row []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(p.event)^1<<63)
	b = binary.BigEndian.AppendUint64(b, uint64(p.knowledge)^1<<63)
	b = binary.BigEndian.AppendUint64(b, uint64(p.seq))
	b = binary.BigEndian.AppendUint32(b, nth)
	b = binary.BigEndian.AppendUint32(b, uint32(len(row)))
	return append(b, row...)
}

func (e entry) event() int64 { return int64(binary.BigEndian.Uint64(e) ^ 1<<63) }
func (e entry) seq() int64   { return int64(binary.BigEndian.Uint64(e[16:])) }

// cutEntry returns the first entry of a list and what follows it; ok is false when the bytes are no list.
func cutEntry(b []byte) (e entry, rest []byte, ok bool) {
	if len(b) < headSize {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b[headOrder:])
	if uint64(n) > uint64(len(b)-headSize) {
		return nil, nil, false
	}
	return b[: headSize+int(n) : headSize+int(n)], b[headSize+int(n):], true
}

// sortEntries brings the entries of one key into the order of a value; of those that tie, the last stays.
func sortEntries(list []entry) []entry {
	slices.SortStableFunc(list, func(a, b entry) int { return bytes.Compare(b[:headOrder], a[:headOrder]) })
	return slices.CompactFunc(list, func(a, b entry) bool { return bytes.Equal(a[:headRow], b[:headRow]) })
}

// pick returns the row of a value that a reader of a sequence point and a time gets. Errors: Corrupt for bytes that are no
// value of the key; Unavailable when the rows that he may see were cut off: he is older than any reader should be, or his
// clock is behind that of the hub that cut.
func (o *online) pick(value, key []byte, seq, now int64) (p packed, found bool, err error) {
	if len(value) == 0 || value[0] != valueWhole && value[0] != valueCut {
		return p, false, errValue
	}
	for rest := value[1:]; len(rest) > 0; {
		e, next, ok := cutEntry(rest)
		if !ok {
			return p, false, errValue
		}
		if e.seq() <= seq && e.event() <= now {
			p, ok := o.layout.sound(e[headSize:], key)
			if !ok || p.event != e.event() || p.seq != e.seq() {
				return p, false, errValue
			}
			return p, true, nil
		}
		rest = next
	}
	if value[0] == valueCut {
		return p, false, waybill.Errorf(waybill.Unavailable, "a row of %s was replaced while it was read, or this hub's clock is behind; read again", o.key.ref)
	}
	return p, false, nil
}

var errValue = waybill.Errorf(waybill.Corrupt, "what is stored outside the hub for a feature row is no row of its view")

// merge puts entries, sorted, into a value, which may be empty, and cuts what no reader can want: everything behind a row
// that is not after settled (µs) nor of a commit after floor. It says whether the value changed. The script of the tier
// does the same to the byte. Errors: Corrupt for a value that is none.
func merge(value []byte, entries []entry, settled, floor int64) (out []byte, changed bool, err error) {
	flag := byte(valueWhole)
	var old []entry
	if len(value) > 0 {
		flag = value[0]
		for rest := value[1:]; len(rest) > 0; {
			e, next, ok := cutEntry(rest)
			if !ok {
				return nil, false, errValue
			}
			old, rest = append(old, e), next
		}
	}
	was := flag
	out = []byte{0}
	for len(old) > 0 || len(entries) > 0 && was == valueWhole { // what is behind a cut stays cut
		var e entry
		order := 1
		switch {
		case len(old) == 0:
			order = -1
		case len(entries) > 0:
			order = bytes.Compare(old[0][:headOrder], entries[0][:headOrder])
		}
		tie := len(old) > 0 && len(entries) > 0 && bytes.Equal(old[0][:headRow], entries[0][:headRow])
		if order >= 0 {
			e = old[0]
		} else {
			e, changed = entries[0], true
		}
		if order >= 0 || tie {
			old = old[1:]
		}
		if order < 0 || tie {
			entries = entries[1:]
		}
		out = append(out, e...)
		if e.event() <= settled && e.seq() <= floor {
			if len(old)+len(entries) > 0 {
				flag = valueCut
			}
			changed = changed || len(old) > 0
			break
		}
	}
	out[0] = flag
	return out, changed || flag != was || len(value) == 0, nil
}

// each yields the packed rows of a value of commits up to seq. Errors: Corrupt; errEnough when yield wants no more.
func (o *online) each(value, key []byte, seq int64, yield func([]byte, error) bool) error {
	if len(value) == 0 {
		return errValue
	}
	for rest := value[1:]; len(rest) > 0; {
		e, next, ok := cutEntry(rest)
		if ok {
			_, ok = o.layout.sound(e[headSize:], key)
		}
		if !ok {
			return errValue
		}
		if e.seq() <= seq && !yield(e[headSize:], nil) {
			return errEnough
		}
		rest = next
	}
	return nil
}
