package registry

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"waybill"
)

// life is a version as the rules of registry.md tell it, in words of its own: what has happened, not which state.
type life struct {
	submitted, consent, refused, withdrawn, lapsed, put bool
}

// TestNextIsTheLifecycle drives random events through Next and, beside it, through the facts above.
func TestNextIsTheLifecycle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		state, facts := Draft, life{}
		step := func(e Event, allowed bool, then func()) func(*rapid.T) {
			return func(t *rapid.T) {
				next, err := Next(state, e)
				if (err == nil) != allowed {
					t.Fatalf("%s of a version that is %s: got %v, allowed %v", e, state, err, allowed)
				}
				if err != nil {
					if waybill.CodeOf(err) != waybill.Conflict || !strings.Contains(err.Error(), string(state)) || next != "" {
						t.Fatalf("refusal of %s: %q, %v", e, next, err)
					}
					return
				}
				state = next
				then()
			}
		}
		for range 12 {
			over := facts.refused || facts.withdrawn || facts.put
			waits := facts.submitted && !facts.consent && !over
			stands := facts.consent && !facts.lapsed && !over
			had := facts.consent && !over
			actions := []func(*rapid.T){
				step(EventSubmit, !facts.submitted, func() { facts.submitted = true }),
				step(EventApprove, waits || had && facts.lapsed, func() { facts.consent, facts.lapsed = true, false }),
				step(EventReject, waits, func() { facts.refused = true }),
				step(EventRevoke, had, func() { facts.withdrawn = true }),
				step(EventExpire, stands, func() { facts.lapsed = true }),
				step(EventRetire, had, func() { facts.put = true }),
			}
			rapid.SampledFrom(actions).Draw(t, "event")(t)
			over = facts.refused || facts.withdrawn || facts.put
			if state.Serves() != (facts.consent && !facts.lapsed && !over) {
				t.Fatalf("serves in %s with %+v", state, facts)
			}
			if (needs(state, []string{"alice"}, nil) == "") != state.Serves() {
				t.Fatalf("%s needs %q", state, needs(state, []string{"alice"}, nil))
			}
		}
	})
}

func TestEveryStateHasItsRow(t *testing.T) {
	t.Parallel()
	for _, s := range []State{Draft, Submitted, Approved, Rejected, Revoked, Expired, Retired} {
		if !s.known() || remedies[s] == "" {
			t.Errorf("%s has no transitions or no remedy", s)
		}
		if strings.HasPrefix(needs(s, nil, nil), "is in the unknown") {
			t.Errorf("%s has no words", s)
		}
	}
	if _, err := Next("asleep", EventApprove); waybill.CodeOf(err) != waybill.Conflict {
		t.Errorf("unknown state: %v", err)
	}
}

func TestNeedsNamesTheAuthors(t *testing.T) {
	t.Parallel()
	for want, authors := range map[string][]string{
		"needs one approval by someone other than alice":               {"alice"},
		"needs one approval by someone other than alice or bob":        {"alice", "bob"},
		"needs one approval by someone other than alice, bob or carol": {"alice", "bob", "carol"},
	} {
		if got := needs(Submitted, authors, nil); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestRootDigestGolden is the example of docs/formats/model.md, computed there with sha256sum.
func TestRootDigestGolden(t *testing.T) {
	t.Parallel()
	file := Artifact{Path: "model.txt", Size: 5, SHA256: digestOf("tree\n")}
	got, err := RootDigest(LightGBM, "model.txt", []Artifact{file})
	if want := "sha256:7fbd4edffd388e2ed7d6c6a1cd8af2aea8e46cc3f744d472aef87185b2df8517"; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

// TestRootDigestIsTheContent checks that the order of files does not matter and everything else does.
func TestRootDigestIsTheContent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		paths := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z .]{1,4}(/[a-z]{1,3})?`), 1, 6, rapid.ID).Draw(t, "paths")
		var files []Artifact
		for _, p := range paths {
			if CheckPath("path", p) == nil {
				files = append(files, Artifact{Path: p, Size: rapid.Int64Range(0, 99).Draw(t, "size"), SHA256: digestOf(p)})
			}
		}
		if len(files) == 0 {
			return
		}
		root := func(files []Artifact) string {
			d, err := RootDigest(LightGBM, "m", files)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		base := root(files)
		if shuffled := root(rapid.Permutation(files).Draw(t, "order")); shuffled != base {
			t.Fatalf("order changes the digest")
		}
		i := rapid.IntRange(0, len(files)-1).Draw(t, "victim")
		for name, change := range map[string]func(*Artifact){
			"path":   func(f *Artifact) { f.Path += "x" },
			"size":   func(f *Artifact) { f.Size++ },
			"sha256": func(f *Artifact) { f.SHA256 = digestOf("other") },
		} {
			changed := append([]Artifact(nil), files...)
			change(&changed[i])
			if root(changed) == base {
				t.Fatalf("another %s has the same digest", name)
			}
		}
		if root(append(files[:i:i], files[i+1:]...)) == base {
			t.Fatalf("a missing file has the same digest")
		}
	})
}

func TestCheckPath(t *testing.T) {
	t.Parallel()
	for p, ok := range map[string]bool{
		"model.txt": true, "data/model.txt": true, "a b.txt": true, "..model": true, "ünï.txt": true, ".hidden": true,
		"": false, "/model.txt": false, "../model.txt": false, "a/../b": false, "a//b": false, "a/": false, "./a": false,
		".": false, "..": false, "a\\b": false, "a\nb": false, "a\x00b": false, "\xff": false, "a/..": false,
		strings.Repeat("a", 256): false, strings.Repeat("a/", 255) + "aa": true, strings.Repeat("a/", 256) + "a": false,
	} {
		if err := CheckPath("path", p); (err == nil) != ok {
			t.Errorf("%q: got %v, want ok %v", p, err, ok)
		}
	}
}

// FuzzCheckPath checks that an accepted path cannot leave its folder nor forge a line of the manifest.
func FuzzCheckPath(f *testing.F) {
	f.Add("data/model.txt")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, p string) {
		if CheckPath("path", p) != nil {
			return
		}
		var b bytes.Buffer
		if err := WriteManifest(&b, LightGBM, "m", []Artifact{{Path: p, SHA256: digestOf("")}}); err != nil {
			t.Fatal(err)
		}
		if strings.Count(b.String(), "\n") != 4 {
			t.Errorf("%q forges a line", p)
		}
		for _, part := range strings.Split(p, "/") {
			if part == "" || part == "." || part == ".." {
				t.Errorf("%q has the part %q", p, part)
			}
		}
	})
}
