// SPDX-License-Identifier: Apache-2.0

// Package metrics holds what bailiffd tells Prometheus, and the loopback server
// that tells it: /metrics, /healthz and /readyz. Counters that userspace keeps
// are fields of Metrics; what lives in kernel maps is asked for at each scrape.
package metrics
