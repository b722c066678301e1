package featurestore

// HistoryRow is a row as the join sees it, for the tests' oracle.
type HistoryRow struct {
	Key                   string
	Event, Knowledge, Seq int64
}

// AsOf runs the kernel and returns the index of the winner in rows, or −1.
func AsOf(rows []HistoryRow, key string, at, ttl, cutoff int64) int {
	var in []row
	for i, r := range rows {
		in = append(in, row{key: r.Key, event: r.Event, knowledge: r.Knowledge, seq: r.Seq, values: []any{int64(i)}})
	}
	w := newHistory(in).asOf(key, at, ttl, cutoff)
	if w == nil {
		return -1
	}
	return int(w.values[0].(int64))
}

// EncodeKey exposes the key encoding.
func EncodeKey(keys []any) string { return encodeKey(keys) }

// ReadTable runs the decoders of files.
func ReadTable(format string, data []byte) error {
	_, err := readTable(format, data, anyNames)
	return err
}

// WriteParquet writes a small file.
func WriteParquet(rows int) ([]byte, error) {
	return writeParquet([]Column{{Name: "a", Type: Int64}, {Name: "b", Type: String}}, rows, "", func(i, c int) any {
		if c == 0 {
			return int64(i)
		}
		return "x"
	})
}

// MaxFileCells and MaxText are bounds of a file.
const (
	MaxFileCells = maxFileCells
	MaxText      = maxText
)
