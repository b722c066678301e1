package api

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"waybill"
)

// maxPage bounds every list.
const maxPage = 1000

// pageSize reads a page size: 0 means a hundred.
func pageSize(n int32) (int, error) {
	if n < 0 || n > maxPage {
		return 0, waybill.InvalidField("page_size", "must lie in 0 to 1,000; 0 means 100")
	}
	if n == 0 {
		return 100, nil
	}
	return int(n), nil
}

// stamp writes a time; the zero time is absent.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// instant reads a time; an absent one is the zero time.
func instant(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, waybill.InvalidField(field, "is not a time; write 2026-04-10T18:00:00Z")
	}
	at := t.AsTime().Truncate(time.Microsecond)
	if y := at.Year(); y < 1900 || y > 2200 {
		return time.Time{}, waybill.InvalidField(field, "lies outside the years 1900 to 2200")
	}
	return at, nil
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
