package api

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// door is a gRPC connection without a socket: services are registered on it and clients call through it, by the same
// interceptor as over the network. grpc-gateway's REST handlers are clients of it. It refuses streams.
type door struct {
	intercept grpc.UnaryServerInterceptor
	methods   map[string]method
}

type method struct {
	srv     any
	handler grpc.MethodHandler
}

// RegisterService makes the door a grpc.ServiceRegistrar.
func (d *door) RegisterService(desc *grpc.ServiceDesc, srv any) {
	for _, m := range desc.Methods {
		d.methods["/"+desc.ServiceName+"/"+m.MethodName] = method{srv, m.Handler}
	}
}

// Invoke makes the door a grpc.ClientConnInterface. Outgoing metadata becomes incoming.
func (d *door) Invoke(ctx context.Context, name string, args, reply any, _ ...grpc.CallOption) error {
	m, ok := d.methods[name]
	if !ok {
		return status.Error(codes.Unimplemented, "there is no such method")
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	ctx = metadata.NewIncomingContext(metadata.NewOutgoingContext(ctx, nil), md)
	res, err := m.handler(m.srv, ctx, func(into any) error {
		to, ok1 := into.(proto.Message)
		from, ok2 := args.(proto.Message)
		if !ok1 || !ok2 {
			return fmt.Errorf("move request of %s: not a message", name)
		}
		proto.Merge(to, from) // the handler owns what it is given
		return nil
	}, d.intercept)
	if err != nil {
		return err
	}
	to, ok1 := reply.(proto.Message)
	from, ok2 := res.(proto.Message)
	if !ok1 || !ok2 {
		return fmt.Errorf("move response of %s: not a message", name)
	}
	proto.Reset(to)
	proto.Merge(to, from)
	return nil
}

// NewStream refuses: streams are for gRPC clients.
func (d *door) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "streams are served over gRPC only")
}
