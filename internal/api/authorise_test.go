package api

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "waybill/proto/feast/serving"
	_ "waybill/proto/waybill/access/v1"
	_ "waybill/proto/waybill/audit/v1"
	decisionv1 "waybill/proto/waybill/decision/v1"
	_ "waybill/proto/waybill/drift/v1"
	_ "waybill/proto/waybill/featurestore/v1"
	_ "waybill/proto/waybill/lineage/v1"
	_ "waybill/proto/waybill/registry/v1"
)

// Every rpc of every domain says what its caller must be allowed to do.
func TestEveryRPCHasARule(t *testing.T) {
	t.Parallel()
	n := 0
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if p := string(f.Package()); !strings.HasPrefix(p, "waybill.") && !strings.HasPrefix(p, "feast.") && p != "" {
			return true // Google's
		}
		for i := range f.Services().Len() {
			rs, err := rules(f.Services().Get(i))
			if err != nil {
				t.Error(err)
			}
			n += len(rs)
		}
		return true
	})
	if n < 50 {
		t.Errorf("only %d rpcs seen", n)
	}
}

func TestResource_CannotBeWidened(t *testing.T) {
	t.Parallel()
	r := rule{parts: []string{"endpoint/", "endpoint"}}
	for in, want := range map[string]string{"route": "endpoint/route", "route@v3": "endpoint/route", "*": "endpoint/?", "": "endpoint/?", "a/b": "endpoint/?"} {
		if got := r.resource(&decisionv1.DecideRequest{Endpoint: in}); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}
