package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"waybill"
	"waybill/featurestore"
	featurestorev1 "waybill/proto/waybill/featurestore/v1"
)

// bounded lets in what the gateway can be trusted with: a body within its bound (by its stated length at once, by its
// true one otherwise) that is nothing or one JSON object. The gateway would call a body that is cut off bad, and would
// not look at what follows the first value. Strangers are turned away before any of their body is read.
func (s *Server) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		most := int64(MaxBody)
		if strings.HasSuffix(r.URL.Path, ":push") {
			most = MaxPush
		}
		ctx := metadata.NewIncomingContext(r.Context(), metadata.MD{"authorization": r.Header.Values("Authorization")})
		if _, _, err := authenticate(ctx, s.access); err != nil {
			writeError(w, r, err)
			return
		}
		if r.ContentLength > most {
			writeError(w, r, waybill.Errorf(waybill.TooLarge, "the body has %d bytes; at most %d", r.ContentLength, most))
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			err = waybill.Errorf(waybill.TooLarge, "the body is larger than allowed; at most %d bytes", most)
		case err != nil:
			err = waybill.Wrap(waybill.Invalid, err, "the body ended early; send all of it")
		default:
			err = oneObject(body)
		}
		if err != nil {
			writeError(w, r, err)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// oneObject refuses bodies that are not JSON, or more or less than one object. Nothing at all is an empty request.
func oneObject(body []byte) error {
	body = bytes.TrimLeft(body, " \t\r\n")
	if len(body) == 0 {
		return nil
	}
	if !utf8.Valid(body) {
		return waybill.InvalidField("body", "is not UTF-8; encode the JSON as UTF-8")
	}
	if body[0] != '{' {
		return waybill.InvalidField("body", "is no JSON object; begin with {")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	var first json.RawMessage
	if err := d.Decode(&first); err != nil {
		where := ""
		var se *json.SyntaxError
		if errors.As(err, &se) {
			where = fmt.Sprintf(" at byte %d", se.Offset)
		}
		return waybill.InvalidField("body", "is not JSON"+where+" ("+err.Error()+"); give one object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return waybill.InvalidField("body", "goes on after its end; give one JSON object and nothing else")
	}
	return nil
}

// jsonForm is the gateway's JSON with errors that callers can use.
type jsonForm struct{ runtime.JSONPb }

// NewDecoder reads requests.
func (j *jsonForm) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		switch v.(type) {
		case *featurestorev1.PushRowsRequest, *featurestorev1.ReadOnlineRequest:
			body, err := io.ReadAll(r) // which is in memory
			if err != nil {
				return fmt.Errorf("read body: %w", err)
			}
			r = bytes.NewReader(quoteLong(body))
		}
		err := j.JSONPb.NewDecoder(r).Decode(v)
		if err == nil || errors.Is(err, io.EOF) {
			return err
		}
		return errors.New("the body does not fit: " + readable(err.Error()) + "; the fields are described in /openapi.json")
	})
}

// quoteLong puts those numbers of the rows of a body into quotes that have more digits than a double keeps, since a
// google.protobuf.Value has no other number: int64 and decimal columns read them exactly from text, and the others as they
// would the number. body has been found to be JSON; rows are what lies three levels deep.
func quoteLong(body []byte) []byte {
	var out []byte
	depth, done := 0, 0
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '"':
			for i++; i < len(body) && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case c == '-' || c >= '0' && c <= '9':
			first := i
			for i+1 < len(body) && bytes.IndexByte([]byte("0123456789+-.eE"), body[i+1]) >= 0 {
				i++
			}
			if depth >= 3 && !featurestore.ExactNumber(string(body[first:i+1])) {
				out = append(append(out, body[done:first]...), '"')
				out = append(append(out, body[first:i+1]...), '"')
				done = i + 1
			}
		}
	}
	if done == 0 {
		return body
	}
	return append(out, body[done:]...)
}

var fieldName = regexp.MustCompile(`(field )([a-z][A-Za-z0-9]*)`)

// readable puts protojson's words into ours: without its prefix, with names of fields as they are documented.
func readable(text string) string {
	text = strings.TrimPrefix(text, "proto:")
	text = strings.TrimLeftFunc(text, unicode.IsSpace)
	return fieldName.ReplaceAllStringFunc(text, func(s string) string {
		var b strings.Builder
		for _, c := range s {
			if c >= 'A' && c <= 'Z' {
				b.WriteByte('_')
			}
			b.WriteRune(unicode.ToLower(c))
		}
		return b.String()
	})
}

// strictQuery refuses parameters that are no fields of the request: a filter with a typing error must not be no filter.
type strictQuery struct{ runtime.DefaultQueryParser }

// strictQueries puts strictQuery into the gateway, which keeps its parser in a variable of its package: once, before
// anything is served.
var strictQueries = sync.OnceFunc(func() { runtime.NewServeMux(runtime.SetQueryParameterParser(&strictQuery{})) })

// Parse fills a request from the query.
func (q *strictQuery) Parse(m proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	fields := m.ProtoReflect().Descriptor().Fields()
	for key := range values {
		name, _, _ := strings.Cut(key, ".")
		name, _, _ = strings.Cut(name, "[")
		if fields.ByTextName(name) != nil || fields.ByJSONName(name) != nil {
			continue
		}
		var known []string
		for i := range fields.Len() {
			known = append(known, string(fields.Get(i).Name()))
		}
		slices.Sort(known)
		return fmt.Errorf("%q is no parameter of this request; leave it out or use one of %s", key, strings.Join(known, ", "))
	}
	return q.DefaultQueryParser.Parse(m, values, filter)
}
