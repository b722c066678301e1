package flight

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow/go/v17/arrow/flight"

	"waybill"
)

// A stream that sends nothing loses its place; one that is slow does not, and its end is its end.
func TestWithin_EndsAStreamThatSendsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		last := &flight.FlightData{}
		after := func(d time.Duration, m *flight.FlightData, err error) func() (*flight.FlightData, error) {
			return func() (*flight.FlightData, error) {
				time.Sleep(d)
				return m, err
			}
		}
		start := time.Now()
		if m, err := within(idle, after(idle-time.Second, last, nil)); m != last || err != nil {
			t.Errorf("slow: %v, %v", m, err)
		}
		if m, err := within(idle, after(0, nil, io.EOF)); m != nil || err != io.EOF { //nolint:errorlint // as it is
			t.Errorf("at its end: %v, %v", m, err)
		}
		if _, err := within(idle, after(2*idle, last, nil)); waybill.CodeOf(err) != waybill.Deadline {
			t.Errorf("silent: %v", err)
		}
		if took := time.Since(start); took != 2*idle-time.Second {
			t.Errorf("took %s", took)
		}
		time.Sleep(idle) // the call that was given up ends by itself
	})
}
