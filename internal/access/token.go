package access

import (
	"crypto/rand"
	"crypto/sha256"
	"hash/crc32"
	"math/big"
	"strings"
)

// A token reads
//
//	wb_<env>_<id>_<secret><checksum>
//
//	env       dev or live
//	id        12 characters of base62: the public name of the token
//	secret    32 random bytes in base62, big-endian, 43 characters
//	checksum  CRC-32 (IEEE) of all that stands before it, in base62, 6 characters
//
// so that scanners find leaked ones by pattern, and a mistyped one is refused without a look-up. The checksum is no
// secret and proves nothing.
const (
	idLen     = 12
	secretLen = 43
	sumLen    = 6
	base62    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// tokenText is a token's text, taken apart. It says nothing about whether the token exists.
type tokenText struct {
	env    Env
	id     string
	secret string
}

// parseToken accepts exactly what String makes: every other text is malformed. It does not allocate.
func parseToken(s string) (tokenText, bool) {
	rest, ok := strings.CutPrefix(s, "wb_")
	if !ok || len(s) > 100 {
		return tokenText{}, false
	}
	env, rest, ok := strings.Cut(rest, "_")
	if !ok || env != string(Dev) && env != string(Live) {
		return tokenText{}, false
	}
	id, rest, ok := strings.Cut(rest, "_")
	if !ok || len(id) != idLen || len(rest) != secretLen+sumLen || !isBase62(id) || !isBase62(rest) {
		return tokenText{}, false
	}
	if checksum(s[:len(s)-sumLen]) != [sumLen]byte([]byte(rest[secretLen:])) {
		return tokenText{}, false
	}
	return tokenText{env: Env(env), id: id, secret: rest[:secretLen]}, true
}

// String is the text that the owner gets to see once.
func (t tokenText) String() string {
	s := "wb_" + string(t.env) + "_" + t.id + "_" + t.secret
	sum := checksum(s)
	return s + string(sum[:])
}

// digest is what Postgres stores. The secret has 256 random bits: a plain hash cannot be turned back by guessing.
func (t tokenText) digest() [32]byte {
	var b [secretLen]byte
	copy(b[:], t.secret)
	return sha256.Sum256(b[:])
}

func newToken(env Env) tokenText {
	return tokenText{env: env, id: randomBase62(9)[:idLen], secret: randomBase62(32)}
}

// randomBase62 returns n random bytes as base62, padded to the length of the largest such number (9 → 13, 32 → 43). Its
// last characters are as good as uniform; the first one is not.
func randomBase62(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // crypto/rand.Read never fails: it aborts the process instead
	width := len(big.NewInt(0).Sub(big.NewInt(0).Lsh(big.NewInt(1), uint(8*n)), big.NewInt(1)).Text(62))
	x, base, digit := new(big.Int).SetBytes(raw), big.NewInt(62), new(big.Int)
	out := make([]byte, width)
	for i := range out {
		x.DivMod(x, base, digit)
		out[width-1-i] = base62[digit.Int64()]
	}
	return string(out)
}

func checksum(s string) (out [sumLen]byte) {
	sum := uint32(0xffffffff)
	for i := range len(s) { // crc32.ChecksumIEEE without turning the string into a slice
		sum = crc32.IEEETable[byte(sum)^s[i]] ^ sum>>8
	}
	sum = ^sum
	for i := sumLen - 1; i >= 0; i-- {
		out[i] = base62[sum%62]
		sum /= 62
	}
	return out
}

func isBase62(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
