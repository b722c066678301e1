package bucket

import "context"

// Unfinished are the keys of uploads that were begun and not ended.
func (b *Bucket) Unfinished(ctx context.Context, prefix string) (keys []string, err error) {
	for u, err := range b.unfinished(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		keys = append(keys, u.Key)
	}
	return keys, nil
}
