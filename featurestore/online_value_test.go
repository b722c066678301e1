package featurestore

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"waybill"
	"waybill/internal/pgtest"
)

// The script of the tier and merge make the same bytes of the same rows, in whatever order these come and are cut; and a
// reader gets from them what a search through all rows gives him, or is told to read again.
func TestValue_ScriptMergeAndSearchAgree(t *testing.T) {
	t.Parallel()
	h := newTier(t, pgtest.Redis(t))
	ctx := context.Background()
	cuts, answers, again := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		o := keep(t, h, numbersView(), 0, 0)
		r, ok := o.rows.(*tierRows)
		if !ok {
			t.Fatal("not the tier")
		}
		b := &r.buckets[0]
		key := encodeKey([]any{"k"})
		type line struct{ event, knowledge, seq, nth int64 }
		var all []line
		var value []byte
		time := rapid.OneOf(rapid.Int64Range(-3, 3), rapid.SampledFrom([]int64{math.MinInt64, -1 << 53, 1<<53 + 1, 1<<53 + 2, math.MaxInt64 - 1}))
		claim := "test"
		if _, err := h.run(ctx, 0, claimScript, []string{b.tag + positionKey, b.tag + noteKey}, []string{claim, claim, "5"}); err != nil {
			t.Fatal(err)
		}
		for call := range rapid.IntRange(1, 6).Draw(t, "calls") {
			var entries []entry
			for range rapid.IntRange(0, 3).Draw(t, "rows") {
				l := line{time.Draw(t, "event"), rapid.Int64Range(-2, 2).Draw(t, "knowledge"), rapid.Int64Range(0, 4).Draw(t, "seq"), rapid.Int64Range(0, 2).Draw(t, "nth")}
				if l.event > math.MaxInt64-10 || l.event < math.MinInt64+10 {
					l.knowledge = l.event // a lag beyond 64 bits is none
				}
				all = append(all, l)
				row := o.pack("k", l.event, l.knowledge, l.seq, l.nth)
				p := parseRow(row)
				entries = append(entries, appendEntry(nil, &p, uint32(l.nth), row))
			}
			settled, floor := time.Draw(t, "settled"), rapid.Int64Range(0, 4).Draw(t, "floor")
			entries = sortEntries(entries)
			list := bytes.Join(asBytes(entries), nil)
			m, err := h.run(ctx, 0, putScript, []string{b.tag + noteKey, b.tag + rowKey + key}, []string{claim, strconv.Itoa(call), headTime(settled), headSeq(floor), string(list)})
			if err != nil || m.IsNil() {
				t.Fatal(err)
			}
			if out, changed, err := merge(value, entries, settled, floor); err != nil {
				t.Fatal(err)
			} else if changed && len(out) > 1 {
				value = out
			}
			got, err := h.server.Load().Do(ctx, h.server.Load().B().Get().Key(b.tag+rowKey+key).Build()).AsBytes()
			if err != nil && len(value) > 0 || !bytes.Equal(got, value) {
				t.Fatalf("script %x, merge %x, %v", got, value, err)
			}
		}
		if len(value) == 0 {
			return
		}
		if value[0] == valueCut {
			cuts++
		}
		for range 5 {
			seq, now := rapid.Int64Range(0, 4).Draw(t, "point"), time.Draw(t, "now")
			var want *line
			for i := range all {
				l := &all[i]
				if l.seq > seq || l.event > now {
					continue
				}
				if want == nil || l.event > want.event || l.event == want.event && (l.knowledge > want.knowledge || l.knowledge == want.knowledge && (l.seq > want.seq || l.seq == want.seq && l.nth >= want.nth)) {
					want = l
				}
			}
			p, found, err := o.pick(value, []byte(key), seq, now)
			switch {
			case waybill.CodeOf(err) == waybill.Unavailable && value[0] == valueCut:
				again++
			case err != nil || found != (want != nil):
				t.Fatalf("found %v, %v; want %+v of %+v", found, err, want, all)
			case found:
				if n := o.layout.value(&p, 0); n != want.nth || p.event != want.event || p.knowledge != want.knowledge || p.seq != want.seq {
					t.Fatalf("%+v %v, want %+v of %+v", p, n, want, all)
				}
				answers++
			}
		}
	})
	if cuts == 0 || answers == 0 || again == 0 {
		t.Errorf("%d cut values, %d answers, %d told to read again: some never came", cuts, answers, again)
	}
}

func asBytes(entries []entry) (out [][]byte) {
	for _, e := range entries {
		out = append(out, e)
	}
	return out
}

// Rows of two databases, tenants, views, versions and keys never share a key of the server.
func TestTier_KeysNeverCollide(t *testing.T) {
	t.Parallel()
	name := rapid.StringMatching(`[a-c][a-c0-1_-]{0,2}`)
	text := rapid.StringOf(rapid.SampledFrom([]rune("/{}@v1=!a.0")))
	rapid.Check(t, func(t *rapid.T) {
		type place struct {
			id, tenant, view string
			version          int
			key              string
		}
		draw := func() (place, string) {
			p := place{rapid.SampledFrom([]string{"1", "2"}).Draw(t, "id"), name.Draw(t, "tenant"), name.Draw(t, "view"), rapid.IntRange(1, 12).Draw(t, "version"), text.Draw(t, "key")}
			key := encodeKey([]any{p.key})
			h := &tier{id: p.id}
			return p, h.tag(viewKey{waybill.Tenant(p.tenant), waybill.VersionRef{Name: p.view, Version: p.version}}, bucketOf([]byte(key), clusterBuckets), clusterBuckets) + rowKey + key
		}
		a, x := draw()
		b, y := draw()
		if (a == b) != (x == y) {
			t.Fatalf("%+v is %q, %+v is %q", a, x, b, y)
		}
	})
}

// FuzzValue reads what claims to be a value: it is refused, or what it gives can be read.
func FuzzValue(f *testing.F) {
	o := newOnline(inMemory{}, viewKey{}, numbersView(), time.Second)
	row := o.pack("k", 5, 7, 9, 1)
	p := parseRow(row)
	key := []byte(encodeKey([]any{"k"}))
	one := appendEntry([]byte{valueWhole}, &p, 0, row)
	f.Add(one, int64(9), int64(5))
	f.Add(appendEntry(one, &p, 0, row), int64(8), int64(5))
	f.Add([]byte{valueCut}, int64(1), int64(1))
	f.Fuzz(func(t *testing.T, value []byte, seq, now int64) {
		p, found, err := o.pick(value, key, seq, now)
		if err != nil && found {
			t.Error("an error and a row")
		}
		if found {
			if _, err := o.layout.unpack(append(appendHead(nil, p.event, p.knowledge, p.seq, string(p.key)), p.body...)); err != nil {
				t.Error(err)
			}
			_ = fmt.Sprint(o.layout.values(&p))
		}
		_, _, _ = merge(value, nil, now, seq)
		_ = o.each(value, key, seq, func([]byte, error) bool { return true })
	})
}
