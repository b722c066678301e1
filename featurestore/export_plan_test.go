package featurestore

import "io"

// ReadParquet returns the values of a file by column.
func ReadParquet(r io.Reader) (map[string][]any, error) {
	data, err := readFile(r, 0)
	if err != nil {
		return nil, err
	}
	t, err := readOwn(data)
	if err != nil {
		return nil, err
	}
	out := map[string][]any{}
	for c, name := range t.names {
		for i := range t.rows {
			out[name] = append(out[name], t.cell(i, c))
		}
	}
	return out, nil
}

// DifferencesOfViews compares two definitions: whether what makes a version is the same, and the words.
func DifferencesOfViews(old, now View) (same bool, essential, said []string) {
	d := now.wordingOf(&old)
	return sameEssence(old.essence(), now.essence()), d.essential, d.said
}

// DifferencesOfServices is DifferencesOfViews for services.
func DifferencesOfServices(old, now Service) (same bool, essential, said []string) {
	d := now.wordingOf(&old)
	return sameEssence(old.essence(), now.essence()), d.essential, d.said
}
