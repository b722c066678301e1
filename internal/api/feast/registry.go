package feast

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"waybill"
	"waybill/featurestore"
	feastcore "waybill/proto/feast/core"
	feasttypes "waybill/proto/feast/types"
)

// maxRegistry bounds the registry file in bytes: what a client reads whole whenever its cache is old.
const maxRegistry = 32 << 20

// Registry is a tenant's definitions as Feast's registry file: one serialized feast.core.Registry whose project is the
// tenant. The same definitions give the same bytes. may leaves out what the reader may not see; nil is everything.
//
// A view is a feature view with its latest version. A version that a service reads and that is not the latest is one more,
// "view.v1": clients before 0.64 resolve services by themselves and could not say otherwise which they mean. Every join key
// is an entity. A view is also a push source of its own name, so that the client's push finds it. Expressions of
// services are left out: clients from 0.64 on send a service's name, and the hub evaluates them.
func (d *Door) Registry(ctx context.Context, tenant waybill.Tenant, may func(resource string) bool) ([]byte, error) {
	if may == nil {
		may = func(string) bool { return true }
	}
	b := &registry{tenant: string(tenant), entities: map[string]*feastcore.Entity{}, views: map[waybill.VersionRef]*feastcore.FeatureView{}}
	latest := map[string]int{}
	for page := (featurestore.Page{Size: 1000}); ; {
		list, next, err := d.store.Views(ctx, tenant, page)
		if err != nil {
			return nil, err
		}
		for i := range list {
			if may("view/" + list[i].Name) {
				latest[list[i].Name] = list[i].Version
				b.view(&list[i], list[i].Name)
			}
		}
		if page.Token = next; next == "" {
			break
		}
	}
	for page := (featurestore.Page{Size: 1000}); ; {
		list, next, err := d.store.Services(ctx, tenant, page)
		if err != nil {
			return nil, err
		}
		for i := range list {
			if may("service/" + list[i].Name) {
				if err := b.service(&list[i], func(ref waybill.VersionRef) (bool, error) {
					if latest[ref.Name] == 0 {
						return false, nil
					}
					v, err := d.store.ViewInfo(ctx, tenant, ref)
					if err == nil {
						b.view(&v, v.Name+".v"+strconv.Itoa(v.Version))
					}
					return true, err
				}); err != nil {
					return nil, err
				}
			}
		}
		if page.Token = next; next == "" {
			break
		}
	}
	return b.bytes()
}

// registry is a registry that is being put together.
type registry struct {
	tenant   string
	out      feastcore.Registry
	entities map[string]*feastcore.Entity
	views    map[waybill.VersionRef]*feastcore.FeatureView
	newest   time.Time // publication
	oldest   time.Time
}

func (b *registry) saw(at time.Time) *timestamppb.Timestamp {
	if at.After(b.newest) {
		b.newest = at
	}
	if b.oldest.IsZero() || at.Before(b.oldest) {
		b.oldest = at
	}
	return timestamppb.New(at)
}

// entity names the entity of a join key: the key itself, or key__type where another view types it differently.
func (b *registry) entity(k featurestore.Column, at *timestamppb.Timestamp) string {
	name := k.Name
	if e := b.entities[name]; e != nil && e.GetSpec().GetValueType() != valueType(k.Type) {
		name += "__" + string(k.Type)
	}
	if b.entities[name] == nil {
		b.entities[name] = &feastcore.Entity{Spec: &feastcore.EntitySpecV2{Name: name, ValueType: valueType(k.Type), Description: k.Description, JoinKey: k.Name, Project: b.tenant},
			Meta: &feastcore.EntityMeta{CreatedTimestamp: at, LastUpdatedTimestamp: at}}
		b.out.Entities = append(b.out.Entities, b.entities[name])
	}
	return name
}

func columns(list []featurestore.Column) []*feastcore.FeatureSpecV2 {
	out := make([]*feastcore.FeatureSpecV2, len(list))
	for i, c := range list {
		out[i] = &feastcore.FeatureSpecV2{Name: c.Name, ValueType: valueType(c.Type), Description: c.Description}
		if c.Sensitivity != "" {
			out[i].Tags = map[string]string{"sensitivity": c.Sensitivity}
		}
	}
	return out
}

// computed are the features of a view with those that are computed from them, which clients read alike.
func computed(v *featurestore.View) []featurestore.Column {
	out := slices.Clone(v.Features)
	for _, e := range v.Expressions {
		out = append(out, featurestore.Column{Name: e.Name, Type: e.Type})
	}
	return out
}

func (b *registry) view(v *featurestore.ViewInfo, name string) {
	ref := waybill.VersionRef{Name: v.Name, Version: v.Version}
	if b.views[ref] != nil {
		return
	}
	at := b.saw(v.At)
	spec := &feastcore.FeatureViewSpec{Name: name, Project: b.tenant, Features: columns(computed(&v.View)), EntityColumns: columns(v.Entity.Keys), Online: true,
		Description: v.Description, Owner: v.Owner, Tags: map[string]string{"waybill_version": ref.String()}}
	for k, t := range v.Tags {
		spec.Tags[k] = t
	}
	for _, k := range v.Entity.Keys {
		spec.Entities = append(spec.Entities, b.entity(k, at))
	}
	spec.Ttl = &durationpb.Duration{}
	if ttl, err := time.ParseDuration(v.TTL); err == nil { // "" is no bound
		spec.Ttl = durationpb.New(ttl)
	}
	// Feast wants a place to read a view's past from. Ours is not a file of the client's; its sets are made here.
	spec.BatchSource = &feastcore.DataSource{Type: feastcore.DataSource_BATCH_FILE, Name: name + "_history", Project: b.tenant, TimestampField: eventColumn,
		CreatedTimestampColumn: createdColumn, Description: "the hub's own history of " + ref.String() + "; make training sets on the hub",
		Options: &feastcore.DataSource_FileOptions_{FileOptions: &feastcore.DataSource_FileOptions{Uri: name + ".parquet",
			FileFormat: &feastcore.FileFormat{Format: &feastcore.FileFormat_ParquetFormat_{ParquetFormat: &feastcore.FileFormat_ParquetFormat{}}}}},
		DataSourceClassType: "feast.infra.offline_stores.file_source.FileSource"}
	spec.StreamSource = &feastcore.DataSource{Type: feastcore.DataSource_PUSH_SOURCE, Name: name, Project: b.tenant, TimestampField: eventColumn, CreatedTimestampColumn: createdColumn,
		BatchSource: spec.BatchSource, Options: &feastcore.DataSource_PushOptions_{PushOptions: &feastcore.DataSource_PushOptions{}}, DataSourceClassType: "feast.data_source.PushSource"}
	fv := &feastcore.FeatureView{Spec: spec, Meta: &feastcore.FeatureViewMeta{CreatedTimestamp: at, LastUpdatedTimestamp: at}}
	b.views[ref] = fv
	b.out.FeatureViews = append(b.out.FeatureViews, fv)
	b.out.DataSources = append(b.out.DataSources, spec.GetBatchSource(), spec.GetStreamSource())
}

// service adds a service; older adds a version of a view that is not the latest, or says that it may not be shown: then the
// service is not, either.
func (b *registry) service(sv *featurestore.ServiceInfo, older func(waybill.VersionRef) (bool, error)) error {
	spec := &feastcore.FeatureServiceSpec{Name: sv.Name, Project: b.tenant, Tags: sv.Tags, Description: sv.Description, Owner: sv.Owner}
	byView := map[waybill.VersionRef]*feastcore.FeatureViewProjection{}
	for _, f := range sv.Features {
		ref, err := waybill.ParseFeatureRef("features", f)
		if err != nil {
			return err
		}
		fv := b.views[ref.View]
		if fv == nil {
			shown, err := older(ref.View)
			if err != nil || !shown {
				return err
			}
			fv = b.views[ref.View]
		}
		p := byView[ref.View]
		if p == nil {
			p = &feastcore.FeatureViewProjection{FeatureViewName: fv.GetSpec().GetName(), TimestampField: eventColumn, CreatedTimestampColumn: createdColumn,
				BatchSource: fv.GetSpec().GetBatchSource(), StreamSource: fv.GetSpec().GetStreamSource()}
			byView[ref.View] = p
			spec.Features = append(spec.Features, p)
		}
		n := slices.IndexFunc(fv.GetSpec().GetFeatures(), func(c *feastcore.FeatureSpecV2) bool { return c.GetName() == ref.Feature })
		if n >= 0 {
			p.FeatureColumns = append(p.FeatureColumns, fv.GetSpec().GetFeatures()[n])
		}
	}
	at := b.saw(sv.At)
	b.out.FeatureServices = append(b.out.FeatureServices, &feastcore.FeatureService{Spec: spec, Meta: &feastcore.FeatureServiceMeta{CreatedTimestamp: at, LastUpdatedTimestamp: at}})
	return nil
}

func (b *registry) bytes() ([]byte, error) {
	b.out.RegistrySchemaVersion = "1"
	b.out.LastUpdated = timestamppb.New(b.newest)
	b.out.Projects = []*feastcore.Project{{Spec: &feastcore.ProjectSpec{Name: b.tenant, Description: "a tenant of a Waybill hub"},
		Meta: &feastcore.ProjectMeta{CreatedTimestamp: timestamppb.New(b.oldest), LastUpdatedTimestamp: timestamppb.New(b.newest)}}}
	sum := sha256.Sum256([]byte("project " + b.tenant))
	b.out.ProjectMetadata = []*feastcore.ProjectMetadata{{Project: b.tenant, ProjectUuid: uuid(sum)}}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(&b.out)
	if err != nil {
		return nil, fmt.Errorf("marshal registry: %w", err)
	}
	b.out.VersionId = uuid(sha256.Sum256(raw)) // clients compare it to see whether anything changed
	if raw, err = (proto.MarshalOptions{Deterministic: true}).Marshal(&b.out); err != nil {
		return nil, fmt.Errorf("marshal registry: %w", err)
	}
	if len(raw) > maxRegistry {
		return nil, waybill.Errorf(waybill.TooLarge, "the registry file would have %d bytes; at most %d: resolve features by name, as clients from 0.64 on do", len(raw), maxRegistry)
	}
	return raw, nil
}

// uuid writes a digest in the form of a UUID (version 8, RFC 9562).
func uuid(sum [32]byte) string {
	sum[6], sum[8] = sum[6]&15|0x80, sum[8]&63|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// valueType is Feast's name for a type. A vector is a list of floats; lists of decimals have a number only since 0.66.
func valueType(t featurestore.Type) feasttypes.ValueType_Enum {
	scalar := map[featurestore.Type]feasttypes.ValueType_Enum{featurestore.Bool: feasttypes.ValueType_BOOL, featurestore.Int32: feasttypes.ValueType_INT32,
		featurestore.Int64: feasttypes.ValueType_INT64, featurestore.Float32: feasttypes.ValueType_FLOAT, featurestore.Float64: feasttypes.ValueType_DOUBLE,
		featurestore.String: feasttypes.ValueType_STRING, featurestore.Bytes: feasttypes.ValueType_BYTES, featurestore.Timestamp: feasttypes.ValueType_UNIX_TIMESTAMP,
		featurestore.DecimalT: feasttypes.ValueType_STRING} // DECIMAL would be refused by clients that do not know it
	if e, ok := scalar[t]; ok {
		return e
	}
	if elem, ok := strings.CutPrefix(string(t), "list<"); ok {
		if e, ok := scalar[featurestore.Type(strings.TrimSuffix(elem, ">"))]; ok {
			return e + 10 // BYTES = 1, BYTES_LIST = 11 and so on
		}
	}
	if strings.HasPrefix(string(t), "vector<") {
		return feasttypes.ValueType_FLOAT_LIST
	}
	return feasttypes.ValueType_INVALID
}
