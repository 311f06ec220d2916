// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// footprint is what a daemon holds, in its own memory and in the kernel.
type footprint struct {
	resident, heap float64            // bytes; heap: what lived at the last collection
	kernel         uint64             // bytes of its BPF maps
	goroutines     float64            //
	files          float64            // descriptors
	entries        map[string]float64 // by map
}

// scrapeAll returns the daemon's metrics by their names with labels.
func (h *host) scrapeAll(t *testing.T) map[string]float64 {
	t.Helper()
	answer, err := http.Get("http://" + h.scrape + "/metrics")
	must(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(t, err)
	values := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && line[0] != '#' {
			values[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return values
}

// measure waits for a quiet moment and takes the least of some measurements: what
// is not held any more may still wait to be collected.
func (s *stress) measure() footprint {
	s.t.Helper()
	least := s.footprint()
	for range 10 {
		// Each change also makes garbage, so that there is a collection now and then.
		s.apply("nothing.yaml", s.constant(0), false)
		time.Sleep(200 * time.Millisecond)
		f := s.footprint()
		least.resident, least.heap = min(least.resident, f.resident), min(least.heap, f.heap)
		least.goroutines, least.files = min(least.goroutines, f.goroutines), min(least.files, f.files)
		least.kernel, least.entries = f.kernel, f.entries
	}
	return least
}

func (s *stress) footprint() footprint {
	values := s.h.scrapeAll(s.t)
	f := footprint{
		resident: values["process_resident_memory_bytes"], goroutines: values["go_goroutines"], files: values["process_open_fds"],
		heap:    values["go_memstats_next_gc_bytes"] / 2, // the next collection is due when it has doubled
		entries: map[string]float64{},
	}
	for name, value := range values {
		if strings.HasPrefix(name, "bailiff_map_entries{") && !strings.Contains(name, "homes") { // those follow the host's mounts
			f.entries[name] = value
		}
	}
	f.kernel = mapMemory(s.t, s.h.process.Process.Pid)
	return f
}

// mapMemory adds up what the kernel says the BPF maps of a process take.
func mapMemory(t *testing.T, pid int) (sum uint64) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fdinfo", pid)
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, entry := range entries {
		f, err := os.Open(dir + "/" + entry.Name())
		if err != nil {
			continue // closed since
		}
		var bytes uint64
		isMap := false
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if key, value, ok := strings.Cut(lines.Text(), ":"); ok && key == "map_id" {
				isMap = true
			} else if ok && key == "memlock" {
				bytes, _ = strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			}
		}
		f.Close()
		if isMap {
			sum += bytes
		}
	}
	return sum
}

// compare fails the test where more is held than before. Memory has room for what
// is remembered of the sessions that have ended since.
func (f footprint) compare(t *testing.T, before footprint) {
	t.Helper()
	const mib = 1 << 20
	t.Logf("resident %.0f -> %.0f MiB, live heap %.1f -> %.1f MiB, maps %d -> %d KiB, %.0f -> %.0f goroutines, %.0f -> %.0f files",
		before.resident/mib, f.resident/mib, before.heap/mib, f.heap/mib, before.kernel/1024, f.kernel/1024,
		before.goroutines, f.goroutines, before.files, f.files)
	if f.heap > before.heap*1.1+4*mib {
		t.Errorf("live heap grew from %.0f to %.0f bytes", before.heap, f.heap)
	}
	if f.resident > before.resident*1.25+16*mib {
		t.Errorf("resident memory grew from %.0f to %.0f bytes", before.resident, f.resident)
	}
	if f.goroutines > before.goroutines+2 || f.files > before.files+2 {
		t.Errorf("%.0f goroutines and %.0f files, before %.0f and %.0f", f.goroutines, f.files, before.goroutines, before.files)
	}
	if f.kernel > before.kernel+before.kernel/100 {
		t.Errorf("the kernel's maps grew from %d to %d bytes", before.kernel, f.kernel)
	}
	for _, name := range slices.Sorted(maps.Keys(f.entries)) {
		if f.entries[name] > before.entries[name] {
			t.Errorf("%s: %.0f, before %.0f", name, f.entries[name], before.entries[name])
		}
	}
}
