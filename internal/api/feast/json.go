package feast

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"waybill"
	"waybill/featurestore"
)

// maxDepth bounds how deeply a body may be nested.
const maxDepth = 32

// scanner reads one JSON text (RFC 8259) from its start to its end. It is here because a request is mostly names: they
// become substrings of the text instead of copies, and the bounds on rows hold while the text is read and not afterwards.
type scanner struct {
	text string
	at   int
}

// newScanner refuses text that is not UTF-8, so that all that is cut out of it is.
func newScanner(text string) (*scanner, error) {
	if !utf8.ValidString(text) {
		return nil, waybill.InvalidField("body", "is not UTF-8; encode the JSON as UTF-8")
	}
	return &scanner{text: text}, nil
}

func (s *scanner) bad(what string) error {
	return waybill.InvalidField("body", fmt.Sprintf("is not JSON at byte %d (%s); give one object", s.at, what))
}

// next skips white space and returns the byte at hand, 0 at the end.
func (s *scanner) next() byte {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) expect(c byte) error {
	if s.next() != c || s.at == len(s.text) {
		return s.bad("expected " + string(rune(c)))
	}
	s.at++
	return nil
}

// end refuses what follows the value.
func (s *scanner) end() error {
	if s.next(); s.at != len(s.text) {
		return waybill.InvalidField("body", "goes on after its end; give one JSON object and nothing else")
	}
	return nil
}

// object calls member for each name, which must read the value.
func (s *scanner) object(member func(name string) error) error {
	return s.sequence('{', '}', func() error {
		name, err := s.string()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		return member(name)
	})
}

// array calls item for each element, which must read it.
func (s *scanner) array(item func() error) error { return s.sequence('[', ']', item) }

func (s *scanner) sequence(first, last byte, item func() error) error {
	if err := s.expect(first); err != nil {
		return err
	}
	if s.next() == last {
		s.at++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.at++
		case last:
			s.at++
			return nil
		default:
			return s.bad("expected , or " + string(rune(last)))
		}
	}
}

// string reads a text. The character U+0000 is refused, as everywhere: it is no text to Postgres.
func (s *scanner) string() (string, error) {
	if err := s.expect('"'); err != nil {
		return "", err
	}
	start := s.at
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return s.text[start : s.at-1], nil
		case c == '\\':
			return s.escaped(start)
		case c < ' ':
			return "", s.bad("a control character in a text")
		}
	}
	return "", s.bad("a text without an end")
}

// escaped reads the rest of a text that began at start and has an escape at hand.
func (s *scanner) escaped(start int) (string, error) {
	var b strings.Builder
	b.WriteString(s.text[start:s.at])
	for s.at < len(s.text) {
		c := s.text[s.at]
		s.at++
		switch {
		case c == '"':
			return b.String(), nil
		case c < ' ':
			s.at--
			return "", s.bad("a control character in a text")
		case c != '\\':
			b.WriteByte(c)
			continue
		}
		if s.at == len(s.text) {
			break
		}
		c = s.text[s.at]
		s.at++
		switch c {
		case '"', '\\', '/':
			b.WriteByte(c)
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'u':
			r, ok := s.hex()
			if !ok {
				return "", s.bad("not four hexadecimal digits after \\u")
			}
			if r == 0 {
				return "", waybill.InvalidField("body", fmt.Sprintf("holds the character U+0000 before byte %d, which is not text; leave it out", s.at))
			}
			if utf16.IsSurrogate(r) && strings.HasPrefix(s.text[s.at:], `\u`) { // half of a pair; the other must follow
				back := s.at
				s.at += 2
				low, ok := s.hex()
				if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
					r, s.at = utf8.RuneError, back
				}
			}
			b.WriteRune(r) // a half that is alone becomes U+FFFD
		default:
			s.at--
			return "", s.bad("an unknown escape")
		}
	}
	return "", s.bad("a text without an end")
}

func (s *scanner) hex() (rune, bool) {
	if s.at+4 > len(s.text) {
		return 0, false
	}
	n, err := strconv.ParseUint(s.text[s.at:s.at+4], 16, 32)
	if err != nil || strings.ContainsRune(s.text[s.at:s.at+4], '_') {
		return 0, false
	}
	s.at += 4
	return rune(n), true
}

func (s *scanner) literal(word string) error {
	if !strings.HasPrefix(s.text[s.at:], word) {
		return s.bad("expected " + word)
	}
	s.at += len(word)
	return nil
}

func (s *scanner) bool() (bool, error) {
	if s.next() == 't' {
		return true, s.literal("true")
	}
	return false, s.literal("false")
}

// number reads an int64 where the text is a whole number that fits, a json.Number where it has more digits than a float64
// keeps, else a float64. A number too large for a float is refused: it would become an infinity.
func (s *scanner) number() (any, error) {
	start, whole := s.at, true
	digits := func() bool {
		from := s.at
		for s.at < len(s.text) && s.text[s.at] >= '0' && s.text[s.at] <= '9' {
			s.at++
		}
		return s.at > from
	}
	if s.text[s.at] == '-' {
		s.at++
	}
	first := s.at
	if !digits() || s.text[first] == '0' && s.at > first+1 {
		return nil, s.bad("not a number")
	}
	if s.at < len(s.text) && s.text[s.at] == '.' {
		s.at++
		if whole = false; !digits() {
			return nil, s.bad("no digits after the point")
		}
	}
	if s.at < len(s.text) && (s.text[s.at] == 'e' || s.text[s.at] == 'E') {
		s.at++
		if s.at < len(s.text) && (s.text[s.at] == '+' || s.text[s.at] == '-') {
			s.at++
		}
		if whole = false; !digits() {
			return nil, s.bad("no digits in the exponent")
		}
	}
	if whole {
		if n, err := strconv.ParseInt(s.text[start:s.at], 10, 64); err == nil {
			return n, nil
		}
	}
	x, err := strconv.ParseFloat(s.text[start:s.at], 64)
	if err != nil || math.IsInf(x, 0) {
		return nil, waybill.InvalidField("body", fmt.Sprintf("holds a number too large for 64 bits before byte %d; give a smaller one or null", s.at))
	}
	if text := s.text[start:s.at]; !featurestore.ExactNumber(text) {
		return json.Number(text), nil
	}
	return x, nil
}

// value reads null, a truth value, a number (see number), a text or a list of these ([]any). Objects are refused:
// there are no maps among our types.
func (s *scanner) value(depth int) (any, error) {
	switch c := s.next(); {
	case c == '"':
		return s.string()
	case c == 't', c == 'f':
		return s.bool()
	case c == 'n':
		return nil, s.literal("null")
	case c == '-', c >= '0' && c <= '9':
		return s.number()
	case c == '[' && depth < maxDepth:
		list := []any{}
		err := s.array(func() error {
			v, err := s.value(depth + 1)
			list = append(list, v)
			return err
		})
		return list, err
	case c == '{':
		return nil, waybill.InvalidField("body", fmt.Sprintf("holds an object as a value at byte %d; this hub has no maps: give numbers, texts, truth values or lists of them", s.at))
	}
	return nil, s.bad("expected a value")
}

// skip reads a value of any kind and forgets it.
func (s *scanner) skip(depth int) error {
	c := s.next()
	if depth >= maxDepth && (c == '{' || c == '[') {
		return s.bad(fmt.Sprintf("nested more than %d deep", maxDepth))
	}
	switch c {
	case '{':
		return s.object(func(string) error { return s.skip(depth + 1) })
	case '[':
		return s.array(func() error { return s.skip(depth + 1) })
	}
	_, err := s.value(depth)
	return err
}
