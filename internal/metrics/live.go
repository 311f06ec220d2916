// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/prometheus/client_golang/prometheus"

// live is what the canary found, by layer of enforcement.
type live struct {
	now      *prometheus.GaugeVec
	failures *prometheus.CounterVec
}

func newLive(r prometheus.Registerer) live {
	l := live{
		now: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "bailiff_enforcement_live", Help: "1 if the canary was last denied what this layer must deny, and nothing else; 0 if not."},
			[]string{"layer"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bailiff_canary_failures_total", Help: "Times that the canary did not find a layer live."},
			[]string{"layer"}),
	}
	r.MustRegister(l.now, l.failures)
	return l
}

// Live notes what the canary found of a layer.
func (m *Metrics) Live(layer string, ok bool) {
	failures := m.live.failures.WithLabelValues(label(layer))
	if ok {
		m.live.now.WithLabelValues(label(layer)).Set(1)
		return
	}
	m.live.now.WithLabelValues(label(layer)).Set(0)
	failures.Inc()
}
