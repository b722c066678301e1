package featurestore

import "encoding/binary"

// The Arrow library allocates as many fields as a schema's metadata says there are before it looks at one, and follows
// the same field from as many others as point at it. So the metadata of a message is walked first. Sources of the form:
// Arrow's format/Message.fbs and format/Schema.fbs; FlatBuffers internals, "Tables" and "Vectors".

// maxFlatVisits bounds how many fields a schema has, those inside others included.
const maxFlatVisits = 4 * maxFileColumns

// flat reads a flatbuffer. After a mistake bad is set and everything is zero.
type flat struct {
	b      []byte
	bad    bool
	visits int
}

// soundMessage says whether what the library allocates for a message's metadata is there.
func soundMessage(header []byte) bool {
	f := &flat{b: header}
	root := f.u32(0)
	kind := byte(0)
	if at := f.field(root, 1); at > 0 && at < len(f.b) {
		kind = f.b[at]
	}
	head := f.table(root, 2)
	f.vector(root, 4, 4) // custom_metadata
	switch kind {
	case 1: // Schema
		f.fields(head, 1, 0)
		f.vector(head, 2, 4)
		f.vector(head, 3, 8)
	case 2: // DictionaryBatch
		f.batch(f.table(head, 1))
	case 3: // RecordBatch
		f.batch(head)
	default:
		return false
	}
	return !f.bad
}

// batch checks a RecordBatch: nodes and buffers are structs of 16 bytes.
func (f *flat) batch(table int) {
	f.vector(table, 1, 16)
	f.vector(table, 2, 16)
	f.vector(table, 4, 8)
}

// fields checks a vector of Field tables; depth bounds nesting.
func (f *flat) fields(table, i, depth int) {
	at, n := f.vector(table, i, 4)
	for range n {
		if f.visits++; f.bad || depth > 8 || f.visits > maxFlatVisits {
			f.bad = true
			return
		}
		field := at + f.u32(at)
		f.fields(field, 5, depth+1)
		f.vector(field, 6, 4)
		at += 4
	}
}

// vector returns where the elements of the vector in field i of a table are, and how many; 0 when it has none.
func (f *flat) vector(table, i, size int) (at, n int) {
	at = f.table(table, i)
	if at == 0 {
		return 0, 0
	}
	if n = f.u32(at); f.bad || n > (len(f.b)-at-4)/size {
		f.bad = true
		return 0, 0
	}
	return at + 4, n
}

// table returns where field i of a table leads to, 0 when it is not there.
func (f *flat) table(table, i int) int {
	at := f.field(table, i)
	if at == 0 {
		return 0
	}
	return at + f.u32(at)
}

// field returns where field i of a table is, 0 when it is not there.
func (f *flat) field(table, i int) int {
	if table == 0 {
		return 0
	}
	vt := table - int(int32(f.u32(table)))
	if slot := 4 + 2*i; slot+2 <= f.u16(vt) {
		if off := f.u16(vt + slot); off != 0 {
			return table + off
		}
	}
	return 0
}

func (f *flat) u16(at int) int {
	if f.bad || at < 0 || at > len(f.b)-2 {
		f.bad = true
		return 0
	}
	return int(binary.LittleEndian.Uint16(f.b[at:]))
}

func (f *flat) u32(at int) int {
	if f.bad || at < 0 || at > len(f.b)-4 {
		f.bad = true
		return 0
	}
	return int(binary.LittleEndian.Uint32(f.b[at:]))
}
