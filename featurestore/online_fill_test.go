package featurestore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"pgregory.net/rapid"

	"waybill"
)

// The rows of a file, put on all processors at once, are those that were put one after another: the same winner at every
// moment, also of rows that tie.
func TestArena_Fill(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := numbersView()
		one, all := keep(t, inMemory{}, v, time.Hour, 0), keep(t, inMemory{}, v, time.Hour, 0)
		all.rows.(*arena).seed = one.rows.(*arena).seed // that the same shards get the same rows
		const now = 1_000_000_000
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		keys := map[string]bool{}
		for seq := int64(1); seq <= 3; seq++ {
			var recs []arrow.Record
			for range rapid.IntRange(1, 3).Draw(t, "records") {
				var rows []row
				for range rapid.IntRange(0, 3*packBatch).Draw(t, "rows") {
					key := fmt.Sprint("key ", rng.IntN(300))
					keys[key] = true
					n := rng.Int64()
					rows = append(rows, row{key: encodeKey([]any{key}), keys: []any{key}, event: now + rng.Int64N(11) - 5, values: []any{n, fmt.Sprint("text ", n)}})
				}
				rec, err := recordOf(arrowSchema(commitColumns(v)), v, rows)
				if err != nil {
					t.Fatal(err)
				}
				recs = append(recs, rec)
				for i := range rows {
					one.put(one.layout.pack(rows[i:i+1], now+seq, seq), 0, now)
				}
			}
			if err := all.rows.(*arena).fill(recs, now+seq, seq, now); err != nil {
				t.Fatal(err)
			}
			one.show(seq)
			all.show(seq)
		}
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			for seq := int64(1); seq <= 3; seq++ {
				for at := int64(-5); at <= 5; at++ {
					x, y := one.at(key, seq, now+at), all.at(key, seq, now+at)
					if x.status != y.status || x.event != y.event || x.seq != y.seq {
						t.Fatalf("%s of commit %d at %d: %s of %d, commit %d; and on all processors %s of %d, commit %d", key, seq, at, x.status, x.event, x.seq, y.status, y.event, y.seq)
					}
					if x.status != NotFound && (one.layout.value(&x.packed, 0) != all.layout.value(&y.packed, 0) || one.layout.value(&x.packed, 1) != all.layout.value(&y.packed, 1)) {
						t.Fatalf("%s of commit %d at %d has other values on all processors", key, seq, at)
					}
				}
			}
		}
		n, size := one.rows.(*arena).memory()
		if m, other := all.rows.(*arena).memory(); n != len(keys) || m != n || other != size {
			t.Fatalf("%d keys in %d bytes, and on all processors %d in %d", n, size, m, other)
		}
	})
}

// Readers see one commit or the next while that is put on all processors.
func TestArena_FillWhileRead(t *testing.T) {
	t.Parallel()
	const now, keys = 1_000_000_000, 600
	v := numbersView()
	o := keep(t, inMemory{}, v, time.Hour, 0)
	rows := o.rows.(*arena)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	read := func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			seq := o.seq.Load()
			x, found := rows.get([]byte(encodeKey([]any{fmt.Sprint("key ", i%keys)})), seq, now)
			want := any(seq)
			if i%keys%7 == 0 {
				want = nil
			}
			if !found || x.seq != seq || o.layout.value(&x, 0) != want {
				t.Errorf("%t: commit %d, not %d", found, x.seq, seq)
				return
			}
		}
	}
	for seq := int64(1); seq <= 8; seq++ {
		var some []row
		for i := range 2 * keys { // each key twice: of rows that tie the later stays
			n := any(seq + int64(i/keys) - 1)
			if i%keys%7 == 0 { // a slice of an array with nulls counts them when it is first asked
				n = nil
			}
			key := fmt.Sprint("key ", i%keys)
			some = append(some, row{key: encodeKey([]any{key}), keys: []any{key}, event: now - 100 + seq, values: []any{n, strings.Repeat("text", 30)}})
		}
		rec, err := recordOf(arrowSchema(commitColumns(v)), v, some)
		if err != nil {
			t.Fatal(err)
		}
		if err := rows.fill([]arrow.Record{rec.NewSlice(0, 700), rec.NewSlice(700, 2*keys)}, now+seq, seq, now); err != nil {
			t.Fatal(err)
		}
		o.show(seq)
		o.ready.Store(true)
		if seq == 1 {
			readers.Go(read)
			readers.Go(read)
		}
	}
	close(stop)
	readers.Wait()
}

// What goes wrong while a file is written, close says, and nothing is left undone.
func TestCommitFile_WriteFails(t *testing.T) {
	t.Parallel()
	f := newCommitFile(numbersView())
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "other", Type: arrow.PrimitiveTypes.Int64}}, nil))
	for range rowGroup {
		b.Field(0).(*array.Int64Builder).Append(1)
	}
	rec := b.NewRecord()
	for range 2 * turnsAhead {
		f.add(rec)
	}
	if file, err := f.close(); err == nil || file != nil {
		t.Errorf("%v, %v", file, err)
	}
	f.stop()
	if f.writes.todo != nil || f.out.hashes.todo != nil {
		t.Error("something goes on")
	}
}

// A file in blocks reads as what was written into it, wherever blocks end.
func TestLaidFile(t *testing.T) {
	t.Parallel()
	f, want := newLaidFile(), []byte{}
	if _, err := f.Write([]byte("few")); err != nil || cap(f.blocks[0]) > 64 {
		t.Fatalf("%d bytes are taken for 3, %v", cap(f.blocks[0]), err)
	}
	f = newLaidFile()
	for i, n := range []int{1, blockSize - 2, 1, 0, 5, 2*blockSize + 3, blockSize - 8} {
		p := bytes.Repeat([]byte{byte(i + 1)}, n)
		if got, err := f.Write(p); err != nil || got != n {
			t.Fatal(got, err)
		}
		want = append(want, p...)
	}
	if err := f.end(); err != nil || f.sum != sha256.Sum256(want) {
		t.Fatalf("digest %x, %v", f.sum, err)
	}
	if !bytes.Equal(f.bytes(), want) || f.size != int64(len(want)) {
		t.Fatalf("%d bytes, not %d", f.size, len(want))
	}
	for _, at := range []int64{0, 1, blockSize - 1, blockSize, 2*blockSize - 3, f.size - 1, f.size} {
		for _, n := range []int{1, 3, blockSize + 1} {
			p := make([]byte, n)
			got, err := f.ReadAt(p, at)
			rest := want[at:]
			if len(rest) >= n && (err != nil || got != n) || len(rest) < n && (!errors.Is(err, io.EOF) || got != len(rest)) || !bytes.Equal(p[:got], rest[:got]) {
				t.Fatalf("%d bytes at %d: %d, %v", n, at, got, err)
			}
		}
	}
}

// A file is as long as its sender says, when he says it, and no memory is taken for promises.
func TestReadFile(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{1, 1000, firstBytes - 1, firstBytes, firstBytes + 1, 3 * firstBytes} {
		text := strings.Repeat("0123456789", int(n/10+1))[:n]
		for _, size := range []int64{0, n} {
			data, err := readFile(iotest.HalfReader(strings.NewReader(text)), size)
			if err != nil || string(data) != text {
				t.Errorf("%d bytes, said to be %d: %d, %v", n, size, len(data), err)
			}
		}
		for size, code := range map[int64]waybill.Code{n + 1: waybill.Invalid, n - 1: waybill.Invalid, MaxFileBytes: waybill.Invalid, MaxFileBytes + 1: waybill.TooLarge, -1: waybill.Invalid} {
			if _, err := readFile(strings.NewReader(text), size); size != 0 && waybill.CodeOf(err) != code {
				t.Errorf("%d bytes, said to be %d: %v", n, size, err)
			}
		}
		broken := errors.New("the line broke")
		for _, size := range []int64{0, n + 1, 5 * firstBytes} {
			if _, err := readFile(io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)), size); !errors.Is(err, broken) {
				t.Errorf("broken after %d bytes, said to be %d: %v", n, size, err)
			}
		}
	}
}
