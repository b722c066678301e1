package pgtest

import (
	"slices"
	"testing"
)

// What the set-up made is found also after the S3 gateway has changed the working directory.
func TestLocalBinaries(t *testing.T) {
	before := localBinaries()
	t.Chdir(t.TempDir())
	if after := localBinaries(); len(before) != 1 || !slices.Equal(before, after) {
		t.Errorf("found %q, and from another folder %q", before, after)
	}
}
