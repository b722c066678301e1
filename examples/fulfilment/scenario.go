package fulfilment

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Config sets the synthetic scenario up.
type Config struct {
	Seed      uint64
	Now       time.Time // the history ends here
	Shipments int       // past shipments to learn from; defaults to 12,000
}

// place is a point on the map.
type place struct {
	name     string
	lat, lng float64
}

// The invented company. Never changed.
var (
	warehouses = []place{{"WH-NY-1", 40.72, -74.05}, {"WH-CHI-1", 41.85, -87.75}, {"WH-DAL-1", 32.80, -96.90}, {"WH-LA-1", 34.00, -118.20}}
	carriers   = []string{"CarrierX", "CarrierY", "CarrierZ"}
	levels     = []struct {
		name  string
		hours float64
	}{{"Ground", 96}, {"TwoDay", 46}, {"NextDay", 23}}
	cities = []place{
		{"New York", 40.7128, -74.0060}, {"Boston", 42.36, -71.06}, {"Philadelphia", 39.95, -75.17}, {"Washington", 38.91, -77.04}, {"Atlanta", 33.75, -84.39},
		{"Miami", 25.76, -80.19}, {"Chicago", 41.88, -87.63}, {"Detroit", 42.33, -83.05}, {"Minneapolis", 44.98, -93.27}, {"St. Louis", 38.63, -90.20},
		{"Dallas", 32.78, -96.80}, {"Houston", 29.76, -95.37}, {"New Orleans", 29.95, -90.07}, {"Denver", 39.74, -104.99}, {"Phoenix", 33.45, -112.07},
		{"Los Angeles", 34.05, -118.24}, {"San Francisco", 37.77, -122.42}, {"Seattle", 47.61, -122.33}, {"Portland", 45.52, -122.68}, {"Salt Lake City", 40.76, -111.89},
	}
)

const (
	skus    = 40
	days    = 45 // of history
	noiseSD = 7  // hours that nobody can foresee
)

// Scenario is a synthetic world. Its state at any past hour is a pure function of the seed.
type Scenario struct {
	c Config
	// Per warehouse and hour before Now (0 is now).
	queue, rate, weather [][]float64
	// Per carrier, level and day before Now.
	eta, late [][][]float64
	season    []float64
	areaLate  []float64
}

// New makes a world.
func New(c Config) *Scenario {
	if c.Shipments == 0 {
		c.Shipments = 12_000
	}
	c.Now = c.Now.UTC().Truncate(time.Second)
	rng := rand.New(rand.NewPCG(c.Seed, 0x57617962696c6c)) // "Waybill"
	s := &Scenario{c: c}
	hours := days*24 + 1
	for w := range warehouses {
		queue, rate, weather := make([]float64, hours), make([]float64, hours), make([]float64, hours)
		q, storm := 8+4*rng.Float64(), 0.1
		for h := hours - 1; h >= 0; h-- { // forward in time
			q += 0.08*(12-q) + 2.2*rng.NormFloat64() + 2*math.Max(0, math.Sin(float64(h)/24*2*math.Pi))
			q = math.Max(0.2, math.Min(70, q))
			storm = math.Max(0, math.Min(1, storm+0.02*(0.12-storm)+0.05*rng.NormFloat64()))
			queue[h], rate[h], weather[h] = q, 40-0.3*q+2*rng.NormFloat64()+float64(w), storm
		}
		s.queue, s.rate, s.weather = append(s.queue, queue), append(s.rate, rate), append(s.weather, weather)
	}
	for k := range carriers {
		var etas, lates [][]float64
		for _, l := range levels {
			eta, late := make([]float64, days+1), make([]float64, days+1)
			x := l.hours / 24 * (0.85 + 0.12*float64(k))
			for d := days; d >= 0; d-- {
				x = math.Max(0.5, x+0.05*rng.NormFloat64())
				eta[d], late[d] = x, math.Max(0.01, math.Min(0.6, 0.05+0.07*float64(k)+0.03*rng.NormFloat64()))
			}
			etas, lates = append(etas, eta), append(lates, late)
		}
		s.eta, s.late = append(s.eta, etas), append(s.late, lates)
	}
	for range skus {
		s.season = append(s.season, 0.6+0.8*rng.Float64())
	}
	for range cities {
		s.areaLate = append(s.areaLate, 0.03+0.2*rng.Float64()*rng.Float64())
	}
	return s
}

// areaOf numbers the cell of one degree that a place lies in, as the endpoint's definition does.
func areaOf(p place) int { return int(p.lat+90)*1000 + int(p.lng+180) }

// categoryOf is the category of a SKU, as the definition of sku_season finds it.
func categoryOf(sku string) string {
	switch {
	case strings.HasPrefix(sku, "SKU-1"):
		return "garden"
	case strings.HasPrefix(sku, "SKU-2"):
		return "kitchen"
	}
	return "home"
}

func sku(i int) string { return "SKU-" + strconv.Itoa(i+1) }

// csv builds a table.
type csv struct {
	b    strings.Builder
	rows int
}

func (c *csv) line(cells ...any) {
	for i, v := range cells {
		if i > 0 {
			c.b.WriteByte(',')
		}
		switch v := v.(type) {
		case float64:
			c.b.WriteString(strconv.FormatFloat(math.Round(v*1e4)/1e4, 'g', -1, 64))
		case time.Time:
			c.b.WriteString(v.Format(time.RFC3339Nano))
		default:
			fmt.Fprint(&c.b, v)
		}
	}
	c.b.WriteByte('\n')
	c.rows++
}

func (c *csv) table(view string) Table { return Table{view, []byte(c.b.String()), c.rows - 1} }

// Features returns the history of every view, oldest row first.
func (s *Scenario) Features() []Table {
	var load, weather, carrier, season, category, area csv
	load.line("warehouse", "event_time", "warehouse_queue", "pick_rate")
	weather.line("warehouse", "event_time", "weather_severity")
	for h := days * 24; h >= 0; h-- {
		at := s.c.Now.Add(-time.Duration(h) * time.Hour)
		for w, p := range warehouses {
			load.line(p.name, at, s.queue[w][h], math.Max(0, s.rate[w][h]))
			if h%6 == 0 {
				weather.line(p.name, at, s.weather[w][h])
			}
		}
	}
	carrier.line("carrier", "service_level", "event_time", "carrier_eta_med", "carrier_late_share")
	for d := days; d >= 0; d-- {
		for k, name := range carriers {
			for l, level := range levels {
				carrier.line(name, level.name, s.c.Now.Add(-time.Duration(d)*24*time.Hour), s.eta[k][l][d], s.late[k][l][d])
			}
		}
	}
	season.line("sku", "event_time", "season")
	for i, x := range s.season {
		season.line(sku(i), s.c.Now.Add(-(days+1)*24*time.Hour), x)
	}
	category.line("category", "event_time", "season")
	for _, name := range []string{"garden", "home", "kitchen"} {
		sum, n := 0.0, 0.0
		for i, x := range s.season {
			if categoryOf(sku(i)) == name {
				sum, n = sum+x, n+1
			}
		}
		category.line(name, s.c.Now.Add(-(days+1)*24*time.Hour), sum/n)
	}
	area.line("area", "event_time", "area_orders", "area_late_share", "area_returns")
	for d := days - days%7; d >= 0; d -= 7 {
		seen := map[int]bool{}
		for i, p := range cities {
			if !seen[areaOf(p)] {
				area.line(areaOf(p), s.c.Now.Add(-time.Duration(d)*24*time.Hour), 200+13*i, s.areaLate[i], 3+i)
				seen[areaOf(p)] = true
			}
		}
	}
	return []Table{load.table("warehouse_load"), carrier.table("carrier_lateness"), season.table("sku_season"), category.table("category_season"), area.table("area_history"), weather.table("weather")}
}

// drawn is one shipment: which city, goods, route and how long there was.
type drawn struct {
	city, sku, warehouse, carrier, level int
	units                                int
	hours                                float64
}

// chance is the probability that a shipment comes late, given the world h hours before now. The queue, the carrier, the
// distance, the weather and the season all eat into the time there is; what is left is compared with what nobody foresees.
func (s *Scenario) chance(d drawn, h int) float64 {
	day := min(h/24, days)
	transit := 24*s.eta[d.carrier][d.level][day]*(0.75+distance(cities[d.city], warehouses[d.warehouse])/9000) + 26*math.Pow(s.weather[d.warehouse][h], 1.5) +
		60*s.late[d.carrier][d.level][day] + 30*s.areaLate[d.city] + 4*(s.season[d.sku]-1)
	slack := d.hours - s.queue[d.warehouse][h] - transit
	return 1 / (1 + math.Exp(slack/noiseSD))
}

func distance(a, b place) float64 {
	const rad = math.Pi / 180
	h := math.Pow(math.Sin((b.lat-a.lat)*rad/2), 2) + math.Cos(a.lat*rad)*math.Cos(b.lat*rad)*math.Pow(math.Sin((b.lng-a.lng)*rad/2), 2)
	return 2 * 6371.0088 * math.Asin(math.Sqrt(h))
}

// Spine returns past shipments with what became of them, as a training set's spine: the inputs of the service
// route-risk, event_time and the label late.
func (s *Scenario) Spine() Table {
	rng := rand.New(rand.NewPCG(s.c.Seed, 2))
	var t csv
	t.line("order_id", "event_time", "warehouse", "carrier", "service_level", "sku", "area", "distance_km", "hours_to_deadline", "units", "late")
	for i := range s.c.Shipments {
		h := 24 + rng.IntN((days-2)*24)
		d := drawn{city: rng.IntN(len(cities)), sku: rng.IntN(skus), warehouse: rng.IntN(len(warehouses)), carrier: rng.IntN(len(carriers)), level: rng.IntN(len(levels)), units: 1 + rng.IntN(4)}
		d.hours = levels[d.level].hours*(0.8+0.6*rng.Float64()) + 22 + 40*rng.Float64()
		late := 0
		if rng.Float64() < s.chance(d, h) {
			late = 1
		}
		t.line("PAST-"+strconv.Itoa(i+1), s.c.Now.Add(-time.Duration(h)*time.Hour), warehouses[d.warehouse].name, carriers[d.carrier], levels[d.level].name, sku(d.sku),
			areaOf(cities[d.city]), distance(cities[d.city], warehouses[d.warehouse]), d.hours, d.units, late)
	}
	return t.table("")
}

// Order is one order to be routed.
type Order struct {
	ID      string
	Request map[string]any // the contract of the endpoint route
	drawn   drawn
}

// Orders returns n new orders with deadlines after now. The first is the one of the contract: a customer in New York.
func (s *Scenario) Orders(n int, now time.Time) []Order {
	rng := rand.New(rand.NewPCG(s.c.Seed, 3))
	out := make([]Order, n)
	for i := range out {
		d := drawn{city: rng.IntN(len(cities)), sku: rng.IntN(skus), units: 1 + rng.IntN(4), hours: 40 + 100*rng.Float64()}
		id := "ORD-" + strconv.Itoa(1000+i)
		if i == 0 {
			d, id = drawn{city: 0, sku: 0, units: 1, hours: 52}, "ORD-123"
		}
		p := cities[d.city]
		out[i] = Order{ID: id, drawn: d, Request: map[string]any{"order_id": id, "items": []any{map[string]any{"sku": sku(d.sku), "qty": float64(d.units)}},
			"customer_lat": p.lat, "customer_lng": p.lng, "deadline": now.Add(time.Duration(d.hours * float64(time.Hour))).UTC().Format(time.RFC3339)}}
	}
	return out
}

// Late says what became of an order on a route ("WH-NY-1/CarrierX/TwoDay"), as of the end of the history. The same order
// and route always end the same way.
func (s *Scenario) Late(o Order, action string) (bool, error) {
	parts := strings.Split(action, "/")
	if len(parts) != 3 {
		return false, fmt.Errorf("read route %q: it is not warehouse/carrier/level", action)
	}
	d := o.drawn
	d.warehouse, d.carrier, d.level = -1, -1, -1
	for i, w := range warehouses {
		if w.name == parts[0] {
			d.warehouse = i
		}
	}
	for i, c := range carriers {
		if c == parts[1] {
			d.carrier = i
		}
	}
	for i, l := range levels {
		if l.name == parts[2] {
			d.level = i
		}
	}
	if d.warehouse < 0 || d.carrier < 0 || d.level < 0 {
		return false, fmt.Errorf("read route %q: it is none of the example", action)
	}
	seed := s.c.Seed
	for _, c := range o.ID + action {
		seed = seed*1099511628211 + uint64(c)
	}
	return rand.New(rand.NewPCG(seed, 4)).Float64() < s.chance(d, 0), nil
}

// Drifted returns a new reading of every warehouse in which the queues have grown far beyond anything in the history: a
// conveyor stands still everywhere.
func (s *Scenario) Drifted(now time.Time) Table {
	return s.reading(now, func(w int) (queue, rate float64) { return s.queue[w][0] + 55 + 5*float64(w), s.rate[w][0] / 3 })
}

// Recovered returns a new reading of every warehouse with the queues of the end of the history: the conveyors run again
// and the backlog is gone.
func (s *Scenario) Recovered(now time.Time) Table {
	return s.reading(now, func(w int) (queue, rate float64) { return s.queue[w][0], s.rate[w][0] })
}

// reading makes one row per warehouse, taken at now.
func (s *Scenario) reading(now time.Time, of func(w int) (queue, rate float64)) Table {
	var t csv
	t.line("warehouse", "event_time", "warehouse_queue", "pick_rate")
	for w, p := range warehouses {
		queue, rate := of(w)
		t.line(p.name, now.UTC().Truncate(time.Millisecond), queue, math.Max(0, rate))
	}
	return t.table("warehouse_load")
}
