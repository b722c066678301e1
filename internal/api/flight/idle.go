package flight

import (
	"time"

	"waybill"
)

// A stream of a file holds one of the few places that the feature store has for them (featurestore.Store.Ingest). One whose
// other end has gone to sleep would keep it for ever, so it ends with an error after idle.

// idle is how long a stream that has its turn may neither send nor take anything and keep its place.
const idle = 30 * time.Second

// Receive is what recv returns, or a Deadline when nothing comes for 30 s. Nobody may receive after that; the call that still
// waits ends with its stream.
func Receive[T any](recv func() (T, error)) (T, error) {
	m, in, err := within(recv)
	if !in {
		err = waybill.Errorf(waybill.Deadline, "nothing came for %s, and others wait for their turn; nothing was written: send the stream without a pause", idle)
	}
	return m, err
}

// Send is what send returns, or a Deadline when nothing is taken for 30 s. Nobody may send after that, nor change what is
// sent.
func Send(send func() error) error {
	_, in, err := within(func() (struct{}, error) { return struct{}{}, send() })
	if !in {
		err = waybill.Errorf(waybill.Deadline, "nothing was taken for %s, and others wait for their turn; read the stream without a pause", idle)
	}
	return err
}

// within is what f returns, or in is false when it takes longer than idle.
func within[T any](f func() (T, error)) (_ T, in bool, err error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	late := time.NewTimer(idle)
	defer late.Stop()
	select {
	case r := <-done:
		return r.value, true, r.err
	case <-late.C:
		var none T
		return none, false, nil
	}
}
