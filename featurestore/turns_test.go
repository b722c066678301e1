package featurestore

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"waybill"
)

// However tenants come, go and give up, no more than all places are taken, nobody has more than half, whoever may have a
// free one has it, and nothing is remembered of who is gone.
func TestPlaces_AreSharedByTenants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type call struct {
			tenant waybill.Tenant
			mine   chan struct{}
		}
		p := newPlaces("a test is over", rapid.IntRange(1, 6).Draw(t, "places"))
		most := max(1, p.all/2)
		var calls []call
		has := func(c call) bool {
			select {
			case <-c.mine:
				return true
			default:
				return false
			}
		}
		end := func(at int) {
			c := calls[at]
			if has(c) && rapid.Bool().Draw(t, "in order") {
				p.leave(c.tenant)
			} else {
				p.giveUp(c.tenant, c.mine)
			}
			calls = slices.Delete(calls, at, at+1)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(calls) > 0 && rapid.Bool().Draw(t, "ends") {
				end(rapid.IntRange(0, len(calls)-1).Draw(t, "which"))
			} else {
				tenant := rapid.SampledFrom([]waybill.Tenant{"a", "b", "c"}).Draw(t, "tenant")
				mine, err := p.ask(tenant)
				if err != nil {
					t.Fatal(err)
				}
				calls = append(calls, call{tenant, mine})
			}
			taken, of, wait := 0, map[waybill.Tenant]int{}, map[waybill.Tenant]bool{}
			for _, c := range calls {
				if !has(c) {
					wait[c.tenant] = true
					continue
				}
				if taken++; wait[c.tenant] {
					t.Fatalf("%s: a later call has a place before an earlier one", c.tenant)
				}
				of[c.tenant]++
			}
			for tenant, n := range of {
				if n > most {
					t.Fatalf("%s has %d of %d places", tenant, n, p.all)
				}
			}
			for tenant := range wait {
				if taken < p.all && of[tenant] < most {
					t.Fatalf("%s waits and has %d, of %d places %d are taken", tenant, of[tenant], p.all, taken)
				}
			}
			if taken > p.all || taken != p.taken {
				t.Fatalf("%d of %d places are taken, counted as %d", taken, p.all, p.taken)
			}
		}
		for len(calls) > 0 {
			end(0)
		}
		if p.taken != 0 || len(p.tenants) != 0 {
			t.Fatalf("%d places and %d tenants are remembered", p.taken, len(p.tenants))
		}
	})
}

// One tenant's queue does not hold up another's call: the tenants take turns. A queue that is full says so.
func TestPlaces_TakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces("a test is over", 2)
		var mu sync.Mutex
		var order []waybill.Tenant // who got a place, each of which is left after a second
		ask := func(tenant waybill.Tenant) {
			go func() {
				done, err := p.turn(t.Context(), tenant)
				if err != nil {
					t.Errorf("%s: %v", tenant, err)
					return
				}
				mu.Lock()
				order = append(order, tenant)
				mu.Unlock()
				time.Sleep(time.Second)
				done()
			}()
			synctest.Wait()
		}
		for range 10 {
			ask("a")
		}
		for range 10 {
			ask("b")
		}
		ask("c")
		time.Sleep(2500 * time.Millisecond)
		mu.Lock()
		if at := slices.Index(order, "c"); at < 0 || at > 5 { // in the third round, in which it and another are noted in any order
			t.Errorf("c came after %v", order)
		}
		mu.Unlock()
		time.Sleep(time.Minute)
		mu.Lock()
		if len(order) != 21 {
			t.Errorf("%d of 21 had a place", len(order))
		}
		mu.Unlock()

		ended, end := context.WithCancel(t.Context())
		done, err := p.turn(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		for range maxQueue - 1 {
			ask("a")
		}
		go func() {
			if _, err := p.turn(ended, "a"); waybill.CodeOf(err) != waybill.Exhausted || !strings.Contains(err.Error(), "until a test is over") {
				t.Errorf("gave up: %v", err)
			}
		}()
		synctest.Wait()
		if _, err := p.turn(t.Context(), "a"); waybill.CodeOf(err) != waybill.Exhausted || !strings.Contains(err.Error(), "try again") {
			t.Errorf("a full queue: %v", err)
		}
		if _, err := p.take("a"); waybill.CodeOf(err) != waybill.Exhausted {
			t.Errorf("a place beyond half: %v", err)
		}
		if left, err := p.take("b"); err != nil {
			t.Errorf("the other half: %v", err)
		} else {
			left()
		}
		end()
		done()
		time.Sleep(2 * maxQueue * time.Second)
	})
}
