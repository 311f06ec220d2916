// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Source returns what the kernel maps hold now. It is called once a scrape, from
// any goroutine; an error fails the scrape's values of this source, and is told
// in its answer.
type Source func() (Snapshot, error)

// Snapshot is the state of the kernel side.
type Snapshot struct {
	Verdicts []Verdicts
	Sessions map[string]int // running ones by agent
	Maps     []Map
	Decisions
}

// Decisions is how long the decisions that were timed took in the kernel.
type Decisions struct {
	Count   uint64
	Sum     time.Duration
	Buckets map[time.Duration]uint64 // decisions that took less, by bound
}

// histogram returns the same in seconds.
func (d *Decisions) histogram(desc *prometheus.Desc) prometheus.Metric {
	buckets := map[float64]uint64{}
	for bound, n := range d.Buckets {
		buckets[bound.Seconds()] = n
	}
	return prometheus.MustNewConstHistogram(desc, d.Count, d.Sum.Seconds(), buckets)
}

// Verdicts is how often what an agent did was judged so since the programs
// were loaded. Rows with equal labels are added up.
type Verdicts struct {
	Agent   string
	Kind    string // file, exec, network, unix or guard
	Verdict string // allow, deny or audit
	Count   uint64
}

// Map is how full a kernel map is.
type Map struct {
	Name              string
	Entries, Capacity uint64
}

type collector struct {
	source                                           Source
	verdicts, sessions, entries, capacity, decisions *prometheus.Desc
}

func newCollector(source Source) *collector {
	return &collector{
		source: source,
		verdicts: prometheus.NewDesc("bailiff_verdicts_total", "Verdicts of the kernel since its programs were loaded.",
			[]string{"agent", "kind", "verdict"}, nil),
		sessions: prometheus.NewDesc("bailiff_sessions", "Sessions that run.", []string{"agent"}, nil),
		entries:  prometheus.NewDesc("bailiff_map_entries", "Entries in a kernel map.", []string{"map"}, nil),
		capacity: prometheus.NewDesc("bailiff_map_capacity", "Entries that a kernel map can hold.", []string{"map"}, nil),
		decisions: prometheus.NewDesc("bailiff_decision_duration_seconds",
			"Time that decisions about paths took in the kernel; one in 1024 is timed.", nil, nil),
	}
}

// Describe sends the descriptions of all that Collect sends.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.verdicts, c.sessions, c.entries, c.capacity, c.decisions} {
		ch <- d
	}
}

// Collect asks the source. Equal labels would fail the whole scrape, so rows
// are added up first.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s, err := c.source()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.verdicts, err)
		return
	}
	ch <- s.histogram(c.decisions)
	type key struct{ agent, kind, verdict string }
	verdicts := map[key]uint64{}
	for _, v := range s.Verdicts {
		verdicts[key{label(v.Agent), label(v.Kind), label(v.Verdict)}] += v.Count
	}
	for k, n := range verdicts {
		ch <- prometheus.MustNewConstMetric(c.verdicts, prometheus.CounterValue, float64(n), k.agent, k.kind, k.verdict)
	}
	sessions := map[string]int{}
	for agent, n := range s.Sessions {
		sessions[label(agent)] += n
	}
	for agent, n := range sessions {
		ch <- prometheus.MustNewConstMetric(c.sessions, prometheus.GaugeValue, float64(n), agent)
	}
	maps := map[string]Map{}
	for _, m := range s.Maps {
		old := maps[label(m.Name)]
		maps[label(m.Name)] = Map{Entries: old.Entries + m.Entries, Capacity: old.Capacity + m.Capacity}
	}
	for name, m := range maps {
		ch <- prometheus.MustNewConstMetric(c.entries, prometheus.GaugeValue, float64(m.Entries), name)
		ch <- prometheus.MustNewConstMetric(c.capacity, prometheus.GaugeValue, float64(m.Capacity), name)
	}
}

// label makes what Prometheus takes as a label's value: it refuses bytes that
// are not UTF-8, by panic.
func label(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
