package access

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestToken_RoundTripAndChecksum(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 200 {
		made := newToken(Dev)
		text := made.String()
		if len(text) != len("wb_dev_")+12+1+43+6 || seen[text] {
			t.Fatalf("%s: wrong length, or twice", text)
		}
		seen[text] = true
		if got, ok := parseToken(text); !ok || got != made {
			t.Fatalf("%s: %+v, %v", text, got, ok)
		}
	}
	text := newToken(Live).String()
	for i := range len(text) { // any one character changed is noticed
		c := byte('x')
		if text[i] == c {
			c = 'y'
		}
		if _, ok := parseToken(text[:i] + string(c) + text[i+1:]); ok {
			t.Errorf("a change at %d is accepted", i)
		}
	}
	for _, s := range []string{"", "wb_", "wb_dev_", text[:len(text)-1], text + "0", " " + text, "wb_prod" + text[7:], strings.Repeat("a", 1<<16)} {
		if _, ok := parseToken(s); ok {
			t.Errorf("%.80q is accepted", s)
		}
	}
	// The checksum is the CRC-32 that any other program would compute.
	sum, n := crc32.ChecksumIEEE([]byte(text[:len(text)-6])), uint64(0)
	for _, c := range text[len(text)-6:] {
		n = n*62 + uint64(strings.IndexRune(base62, c))
	}
	if uint64(sum) != n {
		t.Errorf("checksum %d, CRC-32 %d", n, sum)
	}
}

func TestRandomBase62_HasFixedWidthAndAllDigits(t *testing.T) {
	t.Parallel()
	digits := map[rune]bool{}
	for range 300 {
		s := randomBase62(32)
		if len(s) != secretLen || len(randomBase62(9)) < idLen {
			t.Fatalf("%s has %d characters", s, len(s))
		}
		for _, c := range s {
			digits[c] = true
		}
	}
	if len(digits) != 62 {
		t.Errorf("%d different digits", len(digits))
	}
}

// packageDir is taken before any test starts the S3 gateway, which changes the working directory of the process.
var packageDir, _ = os.Getwd()

// TestConstantTime reads the source: digests of secrets are compared by crypto/subtle and by nothing else.
func TestConstantTime(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(gotoken.NewFileSet(), filepath.Join(packageDir, "authenticate.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	subtleCalls := 0
	secret := func(e ast.Expr) bool {
		switch x := e.(type) {
		case *ast.Ident:
			return x.Name == "got" || x.Name == "want"
		case *ast.SelectorExpr:
			return x.Sel.Name == "digest" || x.Sel.Name == "secret"
		}
		return false
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.SelectorExpr:
			if x.Sel.Name == "ConstantTimeCompare" {
				subtleCalls++
			}
			if x.Sel.Name == "Equal" {
				t.Errorf("authenticate.go calls %s", x.Sel.Name)
			}
		case *ast.BinaryExpr:
			if (x.Op == gotoken.EQL || x.Op == gotoken.NEQ) && (secret(x.X) || secret(x.Y)) {
				t.Error("authenticate.go compares a secret with ==")
			}
		}
		return true
	})
	if subtleCalls != 1 {
		t.Errorf("%d constant-time comparisons, want 1", subtleCalls)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(newToken(Dev).String())
	f.Add(newToken(Live).String())
	f.Add("wb_dev_")
	f.Add("wb_live_000000000000_" + strings.Repeat("0", 49))
	f.Fuzz(func(t *testing.T, s string) {
		if got, ok := parseToken(s); ok && got.String() != s {
			t.Errorf("%q is read as %q", s, got.String())
		}
	})
}
