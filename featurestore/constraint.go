package featurestore

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of a column's constraints.
const (
	maxPattern = 1000 // bytes of a pattern
	maxValues  = 1000 // texts in a list of values
)

// Pattern is a regular expression in the syntax of RE2 (https://github.com/google/re2/wiki/Syntax), which matches in
// time linear in the text. What is wrong with it is kept until a check can name the column.
type Pattern struct {
	text string
	re   *regexp.Regexp // anchored; nil when err is set
	err  error
}

// UnmarshalText never fails: see Pattern.
func (p *Pattern) UnmarshalText(b []byte) error {
	*p = Pattern{text: string(b)}
	if len(b) > maxPattern {
		p.err = fmt.Errorf("has %d bytes; at most %d", len(b), maxPattern)
		return nil
	}
	// Compiled by itself first: "a)|(b" would become a good expression between the anchors.
	if _, err := regexp.Compile(p.text); err != nil {
		p.err = fmt.Errorf("is no RE2 expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		return nil
	}
	p.re, p.err = regexp.Compile(`\A(?:` + p.text + `)\z`)
	return nil
}

// MarshalText returns the expression as it was written.
func (p *Pattern) MarshalText() ([]byte, error) { return []byte(p.text), nil }

// String returns the expression as it was written.
func (p *Pattern) String() string { return p.text }

// checkConstraints holds what a column demands of its values against its type.
func checkConstraints(at string, c *Column, fail func(field, remedy string)) {
	numeric := slices.Contains([]Type{Int32, Int64, Float32, Float64, DecimalT}, c.Type)
	for _, b := range []struct {
		name string
		at   *float64
	}{{".min", c.Min}, {".max", c.Max}} {
		switch {
		case b.at == nil:
		case !numeric:
			fail(at+b.name, "bounds a number; a column of type "+string(c.Type)+" has none")
		case math.IsNaN(*b.at) || math.IsInf(*b.at, 0):
			fail(at+b.name, "must be a finite number; leave it out for no bound")
		}
	}
	if c.Min != nil && c.Max != nil && *c.Min > *c.Max {
		fail(at+".min", "is above max; no value would be accepted")
	}
	if len(c.Values) > 0 && c.Type != String {
		fail(at+".values", "lists texts; use min and max for numbers")
	}
	if len(c.Values) > maxValues {
		fail(at+".values", "lists more than 1,000 texts; use a pattern")
	}
	if p := c.Pattern; p != nil {
		if c.Type != String {
			fail(at+".pattern", "describes a text; a column of type "+string(c.Type)+" has none")
		}
		if p.err != nil {
			fail(at+".pattern", p.err.Error())
		}
	}
	if c.MaxLength != 0 && c.Type != String && c.Type != Bytes {
		fail(at+".max_length", "bounds a text or bytes; a column of type "+string(c.Type)+" has no length")
	}
	if c.MaxLength < 0 || c.MaxLength > maxScalar {
		fail(at+".max_length", "must lie in 1 to 65,536 bytes")
	}
}

// fits checks the length of a text or of bytes. The error is a remedy without the field, as that of heldTo.
func (c *Column) fits(n int) error {
	most := maxScalar
	if c.MaxLength > 0 {
		most = c.MaxLength
	}
	if n > most {
		return fmt.Errorf("has %d bytes; at most %d", n, most)
	}
	return nil
}

// errZero refuses a character that neither Postgres nor, in places, JSON can hold: a row whose key has it would be stored
// and never found again.
var errZero = errors.New("holds the character U+0000, which is not text; leave it out")

// heldTo checks a text against the column's constraints.
func (c *Column) heldTo(s string) error {
	if err := c.fits(len(s)); err != nil {
		return err
	}
	if len(c.Values) > 0 && !slices.Contains(c.Values, s) {
		return &wrongValue{"is " + strconv.QuoteToGraphic(short(s)) + "; use one of " + strings.Join(c.Values, ", "), "is text; use one of " + strings.Join(c.Values, ", ")}
	}
	if c.Pattern != nil && c.Pattern.re != nil && !c.Pattern.re.MatchString(s) {
		return &wrongValue{"is " + strconv.QuoteToGraphic(short(s)) + ", which does not match " + c.Pattern.String(), "is text that does not match " + c.Pattern.String()}
	}
	if strings.IndexByte(s, 0) >= 0 {
		return errZero
	}
	return nil
}

// tagPrefix marks a fetch time that a tag of the view holds: external: {fetch_time: "tag:fetched"}.
const tagPrefix = "tag:"

// checkExternal demands of an external signal what makes it possible to judge it later: where it comes from (source), on
// what terms (license), and when it was fetched. fetch_time names what holds that: a timestamp feature of the view when
// every row has its own, event_time when a row is true from when it was fetched, or "tag:NAME" when all was fetched once.
func (v *View) checkExternal(fail func(field, remedy string)) {
	if v.External == nil {
		return
	}
	for _, name := range []string{"source", "license"} {
		if strings.TrimSpace(v.External[name]) == "" {
			fail("external."+name, "is missing; an external signal says where it comes from and on what terms")
		}
	}
	held := v.External["fetch_time"]
	tag, isTag := strings.CutPrefix(held, tagPrefix)
	switch {
	case held == "":
		fail("external.fetch_time", "is missing; name the timestamp feature that says when a row was fetched, event_time, or tag:NAME when all was fetched at once")
	case held == "event_time":
	case isTag:
		if _, err := time.Parse(time.RFC3339, v.Tags[tag]); err != nil {
			fail("external.fetch_time", "names the tag "+strconv.QuoteToGraphic(short(tag))+", which must hold a time as 2026-04-10T18:00:00Z")
		}
	case !slices.ContainsFunc(v.Features, func(c Column) bool { return c.Name == held && c.Type == Timestamp }):
		fail("external.fetch_time", strconv.QuoteToGraphic(short(held))+" is no timestamp feature of the view; name one, event_time, or tag:NAME")
	}
}

// Restricted says whether a column's values are for callers with the right read_personal on its view only. Those of a
// personal column are not: what is stored of them are tokens.
func (c *Column) Restricted() bool { return c.Sensitivity == "secret" }

// sensitivities are ordered: the later, the fewer may see it.
func sensitivities() []string { return []string{"none", "pseudonymous", "personal", "secret"} }

// stricter returns the more sensitive of two classes; "" is none.
func stricter(a, b string) string {
	rank := func(s string) int { return max(0, slices.Index(sensitivities(), s)) }
	if rank(b) > rank(a) {
		return b
	}
	return a
}
