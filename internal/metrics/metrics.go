// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metrics are the daemon's own counters. Its methods may be called from any
// goroutine.
type Metrics struct {
	Registry *prometheus.Registry

	SessionsStarted prometheus.Counter
	Generation      prometheus.Gauge // of the policies in force
	LastApplied     prometheus.Gauge // Unix time, seconds
	LogBytes        prometheus.Counter
	Grants          prometheus.Gauge // that live
	GrantsIssued    prometheus.Counter

	grantsEnded *prometheus.CounterVec
	dropped     *prometheus.CounterVec
	live        live
}

// Build is what bailiff_build_info says.
type Build struct {
	Version string
	Tier    string // full or basic
}

// New makes the metrics and a registry with them, the Go runtime's and the
// process's. source is asked at each scrape; see Source.
func New(b Build, source Source) *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		SessionsStarted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bailiff_sessions_started_total", Help: "Sessions started since the daemon started."}),
		Generation: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "bailiff_policy_generation", Help: "Generation of the policies in force."}),
		LastApplied: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "bailiff_policy_last_applied_timestamp_seconds", Help: "When policies were last applied or deleted, in Unix time."}),
		LogBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bailiff_log_bytes_written_total", Help: "Bytes written to the event log."}),
		Grants: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "bailiff_grants", Help: "Grants that have not ended."}),
		GrantsIssued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bailiff_grants_issued_total", Help: "Grants issued since the daemon started."}),
		grantsEnded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bailiff_grants_ended_total", Help: "Grants that the daemon saw the end of, by how they ended."},
			[]string{"how"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bailiff_events_dropped_total", Help: "Events that are not in the log, by where they were lost: kernel, queue or write."},
			[]string{"agent", "stage"}),
	}
	m.live = newLive(m.Registry)
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "bailiff_build_info", Help: "1, labelled with what runs.",
		ConstLabels: prometheus.Labels{"version": b.Version, "goversion": runtime.Version(), "tier": b.Tier}})
	info.Set(1)
	m.Registry.MustRegister(m.SessionsStarted, m.Generation, m.LastApplied, m.LogBytes, m.dropped, info,
		m.Grants, m.GrantsIssued, m.grantsEnded,
		newCollector(source),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// GrantEnded counts a grant that ended: expired, used up, revoked, session ended
// or lost.
func (m *Metrics) GrantEnded(how string) { m.grantsEnded.WithLabelValues(label(how)).Inc() }

// Drop counts n events that were lost at a stage: kernel, queue or write.
func (m *Metrics) Drop(agent, stage string, n uint64) {
	m.dropped.WithLabelValues(label(agent), label(stage)).Add(float64(n))
}
