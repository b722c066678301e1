package feast

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"waybill"
	"waybill/featurestore"
)

// The columns of times in a frame, as Feast's clients name them. "created" only orders rows that are otherwise tied: when
// the hub learned something is the hub's to say.
const (
	eventColumn   = "event_timestamp"
	createdColumn = "created"
)

// write appends rows to a view as one commit. The same content again right after is the same commit, so a client may retry.
func (d *Door) write(ctx context.Context, actor waybill.Actor, field string, w *write) (featurestore.Commit, error) {
	ref, err := waybill.ParseVersionRef(field, w.view)
	if err != nil {
		return featurestore.Commit{}, err
	}
	if w.df.rows == 0 {
		return featurestore.Commit{}, waybill.InvalidField("df", fmt.Sprintf("must have 1 to %d rows", maxFrame))
	}
	v, err := d.store.ViewInfo(ctx, actor.Tenant, ref)
	if err != nil {
		return featurestore.Commit{}, err
	}
	rows, err := frameRows(&v.View, &w.df)
	if err != nil {
		return featurestore.Commit{}, err
	}
	order := tieOrder(&w.df)
	sorted := make([]map[string]any, len(rows))
	for i, n := range order {
		sorted[i] = rows[n]
	}
	ref = waybill.VersionRef{Name: v.Name, Version: v.Version}
	last, end, err := d.store.LastBatch(ctx, actor.Tenant, ref)
	if err != nil {
		return featurestore.Commit{}, err
	}
	c, err := d.store.Push(ctx, actor, featurestore.PushRequest{View: ref, BatchID: batchID(&w.df, last, end), Rows: sorted})
	return c, blame(err, func(row int, column string) (string, string) {
		if row < len(order) {
			row = order[row]
		}
		if column == "event_time" {
			column = eventColumn
		}
		return fmt.Sprintf("df.%s[%d]", column, row), ""
	})
}

// frameRows turns a frame into rows of a view. Every column of the view must be there: one left out would be stored as null.
func frameRows(v *featurestore.View, f *frame) ([]map[string]any, error) {
	columns := slices.Concat(v.Entity.Keys, v.Features)
	for _, c := range columns {
		if !slices.Contains(f.names, c.Name) {
			return nil, waybill.InvalidField("df."+c.Name, "is missing; "+v.Name+" has that column, so give it, with null where a value is unknown")
		}
	}
	if !slices.Contains(f.names, eventColumn) {
		return nil, waybill.InvalidField("df."+eventColumn, "is missing; it says when each row was true")
	}
	rows := make([]map[string]any, f.rows)
	for i := range rows {
		rows[i] = make(map[string]any, len(columns)+1)
	}
	for i, name := range f.names {
		t := featurestore.Timestamp
		key := "event_time"
		switch n := slices.IndexFunc(columns, func(c featurestore.Column) bool { return c.Name == name }); {
		case name == eventColumn:
		case n >= 0:
			t, key = columns[n].Type, name
		case name == createdColumn:
			continue
		default:
			return nil, waybill.InvalidField("df."+clip(name), "is no column of view "+v.Name)
		}
		for j, x := range f.columns[i] {
			rows[j][key] = incoming(t, x)
		}
	}
	return rows, nil
}

// tieOrder is the order in which rows are appended: of rows with the same key and event time the last one wins, and Feast
// says that the one created last does. Rows without a readable time of creation come first.
func tieOrder(f *frame) []int {
	order := make([]int, f.rows)
	for i := range order {
		order[i] = i
	}
	at := slices.Index(f.names, createdColumn)
	if at < 0 {
		return order
	}
	created := make([]time.Time, f.rows)
	for i, v := range f.columns[at] {
		switch v := incoming(featurestore.Timestamp, v).(type) {
		case time.Time:
			created[i] = v
		case string:
			created[i], _ = readTime(v)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return created[a].Compare(created[b]) })
	return order
}

// batchID names a frame by its content and by the end of the log that it is written to: that of the newest commit, last,
// when it has the same content. A client sends no id, and its HTTP stack may send a frame again whose answer was lost; then
// nothing has changed since, mostly, and the commit is found again. After other commits the same frame may take a correction
// back, so it is one of its own, and wins. If it was a late repeat after all, the rows are in the history twice with the same
// values: no answer differs, but for rows of the same entity and time that came in between, over which the later write wins.
func batchID(f *frame, last string, end int64) string {
	id := contentID(f)
	if strings.HasPrefix(last, id) { // also without a sequence, as earlier hubs named it
		return last
	}
	return id + ":" + strconv.FormatInt(end, 10)
}

// contentID names a frame by its content, whatever the order of its columns.
func contentID(f *frame) string {
	order := make([]int, len(f.names))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(f.names[a], f.names[b]) })
	h := sha256.New()
	var b []byte
	for _, i := range order {
		b = append(appendText(b[:0], f.names[i]), ':')
		for _, v := range f.columns[i] {
			if list, ok := v.([]any); ok && len(list) == 0 {
				b = append(b, "[]"...) // which appendValue would not tell from null
			} else {
				b, _ = appendValue(b, v)
			}
			b = append(b, ',')
		}
		h.Write(b)
	}
	return "feast:" + hex.EncodeToString(h.Sum(nil))
}

// destination refuses what this hub cannot do: it has one log for both stores, so nothing reaches only the past.
func destination(to string) error {
	switch to {
	case "", "online", "online_and_offline":
		return nil
	case "offline":
		return waybill.InvalidField("to", "is offline, but rows that are written here are served as well; write online_and_offline, or use CSV or Parquet files for what must not be served")
	}
	return waybill.InvalidField("to", "must be online or online_and_offline; the two are one here")
}

// materialize waits until online reads have every commit that there is of the named views (of all, without names). More
// it need not do: rows are online once they are committed. A client may believe that the hub would fetch rows from a source
// of the client's; where a named view has none at all that is what happened, and it is told.
func (d *Door) materialize(ctx context.Context, tenant waybill.Tenant, p *period) ([]string, error) {
	if p.version != "" && len(p.views) != 1 {
		return nil, waybill.InvalidField("version", "needs feature_views with exactly one name")
	}
	var done []string
	wait := func(v featurestore.ViewInfo) error {
		done = append(done, v.Name)
		return d.store.Await(ctx, tenant, waybill.VersionRef{Name: v.Name, Version: v.Version}, v.Commits)
	}
	for i, name := range p.views {
		if p.version != "" {
			name += "@" + p.version
		}
		ref, err := waybill.ParseVersionRef(fmt.Sprintf("feature_views[%d]", i), name)
		if err != nil {
			return nil, err
		}
		v, err := d.store.ViewInfo(ctx, tenant, ref)
		if err == nil && v.Commits == 0 {
			err = waybill.Errorf(waybill.Invalid, "view %s has no rows here, and this hub does not read a client's sources: send the rows with write_to_online_store, a push or a file", ref)
		}
		if err == nil {
			err = wait(v)
		}
		if err != nil {
			return nil, err
		}
	}
	for page := (featurestore.Page{Size: 1000}); !p.named; {
		list, next, err := d.store.Views(ctx, tenant, page)
		if err != nil {
			return nil, err
		}
		for _, v := range list {
			if !d.May(ctx, "view/"+v.Name, "read") {
				continue // a rule denies this one
			}
			if err := wait(v); err != nil {
				return nil, err
			}
		}
		if page.Token = next; next == "" {
			break
		}
	}
	return done, nil
}

// check reads the times of a period as Feast's server does: they must be there and be times, and mean nothing here.
func (p *period) check(incremental bool) error {
	times := map[string]string{"end_ts": p.end}
	if !incremental {
		if p.noTimes {
			return nil
		}
		times["start_ts"] = p.start
	}
	var at [2]time.Time
	for field, text := range times {
		t, ok := readTime(text)
		if !ok {
			return waybill.InvalidField(field, "must be a time such as 2026-04-10T18:00:00")
		}
		if field == "end_ts" {
			at[1] = t
		} else {
			at[0] = t
		}
	}
	if at[1].Before(at[0]) {
		return waybill.InvalidField("end_ts", "is before start_ts")
	}
	return nil
}

func readTime(text string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
