// Package flight is the Arrow Flight door: stock clients (pyarrow.flight, Arrow's own in any language) write rows to views
// and read training sets over the hub's gRPC port.
//
// It owns the words of that protocol (descriptors, tickets, what a put answers) and no rule of the feature store: rows are
// judged by featurestore.IngestArrow. Who calls and what for is settled by the interceptors of internal/api, which ask this
// package what a message is about (Rules). Invariant: a put is one commit or nothing; a stream that is cut writes nothing.
// internal/api is its only caller.
//
// Source of the protocol: Apache Arrow, format/Flight.proto.
package flight

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/flight"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"waybill"
	"waybill/featurestore"
)

// maxFlights is how many training sets ListFlights shows, newest first.
const maxFlights = 1000

// Config names the parts behind the door.
type Config struct {
	Features *featurestore.Store
	Actor    func(ctx context.Context) waybill.Actor                 // who calls
	May      func(ctx context.Context, resource, action string) bool // whether the caller may do something with a resource
}

// Server serves arrow.flight.protocol.FlightService.
type Server struct {
	flight.BaseFlightServer
	c Config
}

// Register puts the door on a gRPC server.
func Register(r *grpc.Server, c Config) {
	flight.RegisterFlightServiceServer(r, &Server{c: c})
}

// Rule says what a method's first message is about.
type Rule struct {
	Action    string
	AnyCaller bool                       // no resource: every known caller may
	View      func(proto.Message) string // the view's name, as it came; nil when it is about training sets
	Digest    func(proto.Message) string // the training set's digest, "" for none; nil for none
}

// Rules are those of every method, by its full name. Methods that are not served may be called by anybody, to be told so.
func Rules() map[string]Rule {
	const service = "/arrow.flight.protocol.FlightService/"
	info := Rule{Action: "read", View: func(m proto.Message) string {
		d, err := describe(descriptorOf(m))
		if err != nil || isDigest(d.View) {
			return ""
		}
		return d.View
	}, Digest: func(m proto.Message) string {
		if d, err := describe(descriptorOf(m)); err == nil && isDigest(d.View) {
			return d.View
		}
		return ""
	}}
	return map[string]Rule{
		service + "DoPut": {Action: "write", View: func(m proto.Message) string {
			d, err := describe(descriptorOf(m))
			if err != nil {
				return ""
			}
			return d.View
		}},
		service + "DoGet": {Action: "export", Digest: func(m proto.Message) string {
			t, ok := m.(*flight.Ticket)
			if !ok {
				return ""
			}
			return string(t.GetTicket())
		}},
		service + "GetFlightInfo": info,
		service + "GetSchema":     info,
		service + "ListFlights":   {Action: "read"},
		service + "Handshake":     {AnyCaller: true}, service + "PollFlightInfo": {AnyCaller: true}, service + "DoExchange": {AnyCaller: true},
		service + "DoAction": {AnyCaller: true}, service + "ListActions": {AnyCaller: true},
	}
}

// descriptorOf returns the descriptor of a message, or nil.
func descriptorOf(m proto.Message) *flight.FlightDescriptor {
	switch m := m.(type) {
	case *flight.FlightDescriptor:
		return m
	case *flight.FlightData:
		return m.GetFlightDescriptor()
	}
	return nil
}

func isDigest(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// put is what a descriptor says: the path [view] or [view, batch id], or the command as JSON.
type put struct {
	View    string            `json:"view"`
	BatchID string            `json:"batch_id"` // "" makes a new one, and a repeat another commit
	Mode    string            `json:"mode"`
	Columns map[string]string `json:"columns"` // column of the stream → column of the view
	Rows    int64             `json:"rows"`    // how many there will be; 0 does not say. Others than these are refused
}

func describe(d *flight.FlightDescriptor) (p put, err error) {
	switch path := d.GetPath(); {
	case len(path) == 1:
		p.View = path[0]
	case len(path) == 2:
		p.View, p.BatchID = path[0], path[1]
	case len(path) == 0 && len(d.GetCmd()) > 0:
		dec := json.NewDecoder(bytes.NewReader(d.GetCmd()))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&p); err != nil {
			return p, waybill.InvalidField("descriptor.cmd", `cannot be read (`+err.Error()+`); give {"view": …, "batch_id": …, "mode": "reject" or "quarantine", "columns": {…}, "rows": …}`)
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return p, waybill.InvalidField("descriptor.cmd", "goes on after its end; give one JSON object")
		}
	default:
		return p, waybill.InvalidField("descriptor", "must be the path of a view (and a batch id), or a command as JSON")
	}
	if p.View == "" {
		return p, waybill.InvalidField("descriptor", "names no view")
	}
	return p, nil
}

// answer is what a put is answered with, as JSON in the result's metadata.
type answer struct {
	View        string `json:"view"`
	BatchID     string `json:"batch_id"`
	Sequence    int64  `json:"sequence"` // 0: no row was good, there is no commit
	Rows        int64  `json:"rows"`
	Quarantined int64  `json:"quarantined"`
	Duplicate   bool   `json:"duplicate"`
	Digest      string `json:"digest"`
}

// DoPut takes record batches into a view as one commit. The protocol has no word for "this was all": a client that ends its
// stream early in good order, as a destructor may, has written what came. Who wants to be safe from that says the number
// of rows in the command. A batch that is larger than a message may be (8 MiB) is refused by
// gRPC itself: clients write smaller ones (pyarrow: write_table(table, max_chunksize=10000)).
func (s *Server) DoPut(stream flight.FlightService_DoPutServer) error {
	first, err := stream.Recv() // here the interceptor says whether the caller may
	if errors.Is(err, io.EOF) {
		return waybill.InvalidField("stream", "is empty; its first message names the view")
	}
	if err != nil {
		return err
	}
	p, err := describe(first.GetFlightDescriptor())
	if err != nil {
		return err
	}
	ref, err := waybill.ParseVersionRef("view", p.View)
	if err != nil {
		return err
	}
	if p.BatchID == "" {
		p.BatchID = waybill.NewID(waybill.SystemClock()).String()
	}
	ctx := stream.Context()
	next := func() (header, body []byte, err error) {
		m := first
		if first = nil; m == nil {
			if m, err = Receive(stream.Recv); err != nil {
				return nil, nil, err
			}
		}
		return m.GetDataHeader(), m.GetDataBody(), nil
	}
	c, err := s.c.Features.IngestArrow(ctx, s.c.Actor(ctx), featurestore.IngestRequest{View: ref, BatchID: p.BatchID, Mode: featurestore.Mode(p.Mode), Columns: p.Columns, Rows: p.Rows}, next)
	if err != nil {
		return err
	}
	b, err := json.Marshal(answer{c.View.String(), p.BatchID, c.Seq, c.Rows, c.Quarantined, c.Duplicate, c.Digest})
	if err != nil {
		return err
	}
	return stream.Send(&flight.PutResult{AppMetadata: b})
}

// DoGet streams a training set; the ticket is its digest.
func (s *Server) DoGet(t *flight.Ticket, stream flight.FlightService_DoGetServer) error {
	ctx := stream.Context()
	var w *flight.Writer
	err := s.c.Features.TrainingSetRecords(ctx, s.c.Actor(ctx).Tenant, string(t.GetTicket()), func(rec arrow.Record) error {
		if w == nil {
			w = flight.NewRecordWriter(patient{stream}, ipc.WithSchema(rec.Schema()))
		}
		return w.Write(rec)
	})
	if w != nil {
		err = errors.Join(err, w.Close())
	}
	return err
}

// patient is a stream whose reader must go on reading.
type patient struct {
	flight.FlightService_DoGetServer
}

// Send sends a message.
func (p patient) Send(m *flight.FlightData) error {
	return Send(func() error { return p.FlightService_DoGetServer.Send(m) })
}

// GetFlightInfo describes what a path names: a view, with the schema that a put takes, or a training set by its digest,
// with the ticket to get it.
func (s *Server) GetFlightInfo(ctx context.Context, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	p, err := describe(d)
	if err != nil {
		return nil, err
	}
	tenant := s.c.Actor(ctx).Tenant
	if isDigest(p.View) {
		t, err := s.c.Features.TrainingSet(ctx, tenant, p.View)
		if err != nil {
			return nil, err
		}
		return infoOf(&t), nil
	}
	ref, err := waybill.ParseVersionRef("view", p.View)
	if err != nil {
		return nil, err
	}
	v, err := s.c.Features.ViewInfo(ctx, tenant, ref)
	if err != nil {
		return nil, err
	}
	return &flight.FlightInfo{Schema: schemaBytes(v.ArrowSchema()), FlightDescriptor: d, TotalRecords: v.Rows, TotalBytes: -1}, nil
}

// GetSchema is the schema alone of what GetFlightInfo describes.
func (s *Server) GetSchema(ctx context.Context, d *flight.FlightDescriptor) (*flight.SchemaResult, error) {
	info, err := s.GetFlightInfo(ctx, d)
	if err != nil {
		return nil, err
	}
	return &flight.SchemaResult{Schema: info.GetSchema()}, nil
}

// ListFlights lists the newest training sets that the caller may read, at most maxFlights.
func (s *Server) ListFlights(_ *flight.Criteria, stream flight.FlightService_ListFlightsServer) error {
	ctx := stream.Context()
	list, _, err := s.c.Features.TrainingSets(ctx, s.c.Actor(ctx).Tenant, featurestore.Page{Size: maxFlights})
	if err != nil {
		return err
	}
	for i := range list {
		if !s.c.May(ctx, "service/"+list[i].Service.Name, "read") {
			continue
		}
		if err := stream.Send(infoOf(&list[i])); err != nil {
			return err
		}
	}
	return nil
}

func infoOf(t *featurestore.TrainingSet) *flight.FlightInfo {
	meta, err := json.Marshal(map[string]string{"name": t.Name, "service": t.Service.String(), "author": t.Author, "created_at": t.CreatedAt.Format(time.RFC3339)})
	if err != nil {
		meta = nil // cannot be: they are texts
	}
	return &flight.FlightInfo{Schema: schemaBytes(t.ArrowSchema()), FlightDescriptor: &flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: []string{t.Digest}},
		Endpoint: []*flight.FlightEndpoint{{Ticket: &flight.Ticket{Ticket: []byte(t.Digest)}}}, TotalRecords: t.Rows, TotalBytes: -1, Ordered: true, AppMetadata: meta}
}

func schemaBytes(s *arrow.Schema) []byte { return flight.SerializeSchema(s, memory.DefaultAllocator) }
