// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func snapshot() (Snapshot, error) {
	return Snapshot{
		Verdicts: []Verdicts{{"a", "file", "deny", 3}, {"a", "file", "deny", 4}, {"a\xff", "network", "allow", 1}},
		Sessions: map[string]int{"a": 2},
		Maps:     []Map{{"edges", 10, 100}},
		Decisions: Decisions{
			Count: 3, Sum: 300 * time.Nanosecond, Buckets: map[time.Duration]uint64{64: 1, 128: 2},
		},
	}, nil
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestScrape(t *testing.T) {
	m := New(Build{Version: "v1", Tier: "full"}, snapshot)
	m.Drop("a", "queue", 5)
	m.SessionsStarted.Inc()
	m.Generation.Set(7)
	m.LastApplied.Set(1.75e9)
	m.LogBytes.Add(1000)
	m.Grants.Set(2)
	m.GrantsIssued.Add(3)
	m.GrantEnded("used up")
	m.Live("files", true)
	m.Live("network", true)
	m.Live("network", false)
	var notReady error
	s, err := Listen(ServerOptions{Address: "127.0.0.1:0", Gatherer: m.Registry, Ready: func() error { return notReady }})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	base := "http://" + s.Addr().String()

	code, body := get(t, base+"/metrics")
	for _, want := range []string{
		`bailiff_verdicts_total{agent="a",kind="file",verdict="deny"} 7`,
		"bailiff_verdicts_total{agent=\"a\ufffd\",kind=\"network\",verdict=\"allow\"} 1",
		`bailiff_events_dropped_total{agent="a",stage="queue"} 5`,
		`bailiff_sessions{agent="a"} 2`,
		`bailiff_sessions_started_total 1`,
		`bailiff_policy_generation 7`,
		`bailiff_policy_last_applied_timestamp_seconds 1.75e+09`,
		`bailiff_map_entries{map="edges"} 10`,
		`bailiff_map_capacity{map="edges"} 100`,
		`bailiff_decision_duration_seconds_bucket{le="6.4e-08"} 1`,
		`bailiff_decision_duration_seconds_count 3`,
		`bailiff_log_bytes_written_total 1000`,
		`bailiff_grants 2`, `bailiff_grants_issued_total 3`, `bailiff_grants_ended_total{how="used up"} 1`,
		`bailiff_enforcement_live{layer="files"} 1`, `bailiff_canary_failures_total{layer="files"} 0`,
		`bailiff_enforcement_live{layer="network"} 0`, `bailiff_canary_failures_total{layer="network"} 1`,
		`tier="full",version="v1"} 1`,
		`go_goroutines `, `process_open_fds `,
	} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("%d: lacks %s", code, want)
		}
	}
	if code, body := get(t, base+"/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("healthz: %d %s", code, body)
	}
	if code, _ := get(t, base+"/readyz"); code != 200 {
		t.Errorf("readyz: %d", code)
	}
	notReady = errors.New("programs are not loaded")
	if code, body := get(t, base+"/readyz"); code != 503 || !strings.Contains(body, "programs are not loaded") {
		t.Errorf("readyz: %d %s", code, body)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNamesFollowConventions(t *testing.T) {
	m := New(Build{}, snapshot)
	m.Drop("a", "kernel", 1)
	m.GrantEnded("expired")
	m.Live("a", true)
	problems, err := testutil.GatherAndLint(m.Registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// What userspace counts is still told when the kernel's maps cannot be read.
func TestBrokenSource(t *testing.T) {
	m := New(Build{}, func() (Snapshot, error) { return Snapshot{}, errors.New("map is gone") })
	m.LogBytes.Add(1)
	families, err := m.Registry.Gather()
	if err == nil || !strings.Contains(err.Error(), "map is gone") {
		t.Errorf("%v", err)
	}
	found := false
	for _, f := range families {
		found = found || f.GetName() == "bailiff_log_bytes_written_total"
	}
	if !found {
		t.Error("the other metrics are gone too")
	}
}

func TestAddressMustBeLoopback(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:0": true, "127.9.9.9:1": true, "[::ffff:127.0.0.1]:0": true,
		"0.0.0.0:0": false, ":0": false, "[::]:0": false, "10.0.0.1:1": false, "localhost:0": false, "127.0.0.1": false,
	} {
		if err := checkAddress(ServerOptions{Address: address}); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := checkAddress(ServerOptions{Address: "0.0.0.0:0", AnyHost: true}); err != nil {
		t.Error(err)
	}
}
