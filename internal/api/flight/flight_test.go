package flight

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow/go/v17/arrow/flight"

	"waybill"
)

// A stream that sends or takes nothing loses its place; one that is slow does not, and its end is its end.
func TestIdle_EndsAStreamThatSendsOrTakesNothing(t *testing.T) {
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
		if m, err := Receive(after(idle-time.Second, last, nil)); m != last || err != nil {
			t.Errorf("slow: %v, %v", m, err)
		}
		if m, err := Receive(after(0, nil, io.EOF)); m != nil || err != io.EOF { //nolint:errorlint // as it is
			t.Errorf("at its end: %v, %v", m, err)
		}
		if _, err := Receive(after(2*idle, last, nil)); waybill.CodeOf(err) != waybill.Deadline {
			t.Errorf("silent: %v", err)
		}
		if err := Send(func() error { return io.ErrClosedPipe }); err != io.ErrClosedPipe { //nolint:errorlint // as it is
			t.Errorf("failed to send: %v", err)
		}
		if took := time.Since(start); took != 2*idle-time.Second {
			t.Errorf("took %s", took)
		}
		if err := Send(func() error { time.Sleep(2 * idle); return nil }); waybill.CodeOf(err) != waybill.Deadline {
			t.Errorf("nothing was taken: %v", err)
		}
		time.Sleep(idle) // the call that was given up ends by itself
	})
}
