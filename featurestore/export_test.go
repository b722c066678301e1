package featurestore

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
