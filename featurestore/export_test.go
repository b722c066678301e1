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
