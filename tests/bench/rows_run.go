// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func requests(f *fixture) ([]sample, []figure, error) {
	direct := job{Do: "request", Address: [4]byte{127, 0, 0, 1}, Port: f.port, N: f.repeat(500, 50)}
	through := direct
	through.Proxy = f.proxyPort
	figures := []figure{
		{"connect + request + close", "none", ratio("confined", "none"), atMost(1.02), "x"},
		{"a CONNECT proxy's time", "confined", ratio("proxy", "confined"), atLeast(2), "x"},
		{"none", "", half("none"), reach{}, "ns"},
	}
	return egress(direct, through), figures, nil
}

func bulk(f *fixture) ([]sample, []figure, error) {
	direct := job{Do: "send", Address: [4]byte{127, 0, 0, 1}, Port: f.port, N: f.repeat(8, 1)}
	through := direct
	through.Proxy = f.proxyPort
	rate := func(t times) float64 { return 2 * bulkBytes / t["none"] }
	figures := []figure{
		{"throughput", "none", ratio("none", "confined"), atLeast(0.99), "x"},
		{"throughput", "a CONNECT proxy", ratio("proxy", "confined"), atLeast(1.8), "x"},
		{"none", "", rate, reach{}, "GB/s"},
	}
	return egress(direct, through), figures, nil
}

func egress(direct, through job) []sample {
	return []sample{
		{name: "none", state: nothing, worker: agentName, job: direct},
		{name: "proxy", state: nothing, worker: agentName, job: through},
		{name: "confined", state: enforced, worker: agentName, job: direct},
	}
}

func spawn(f *fixture) ([]sample, []figure, error) {
	command, err := fields("true")
	j := job{Do: "run", Path: f.tree, Command: command, N: f.repeat(100, 20), CPU: f.place.Instructions}
	samples := []sample{
		{name: "none", state: nothing, worker: agentName, job: j},
		{name: "landlock", state: nothing, worker: landlockName, job: j},
		{name: "confined", state: enforced, worker: agentName, job: j},
	}
	figures := []figure{
		{"fork + exec", "none", ratio("confined", "none"), atMost(1.02), "x"},
		{"fork + exec, Landlock", "none", ratio("landlock", "none"), reach{}, "x"},
		{"none", "", half("none"), reach{}, "ns"},
	}
	return samples, figures, err
}

// Size of the tree that the developer's loop works on.
const (
	loopDirs  = 40
	loopFiles = 20 // a directory
)

// developer runs what an agent runs all day, each command on its own.
func developer(f *fixture) (samples []sample, figures []figure, err error) {
	repository := filepath.Join(f.tree, "repository")
	if err := f.repository(repository); err != nil {
		return nil, nil, err
	}
	environ := []string{
		"PATH=/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin", "HOME=" + f.tree, "TMPDIR=" + f.tree,
		"GOCACHE=" + f.tree + "/cache", "GOPATH=" + f.tree + "/go", "GOTOOLCHAIN=local", "GOFLAGS=-p=1", "CGO_ENABLED=0", "GOTELEMETRY=off",
	}
	lines := []string{
		"git status --short", "git grep -c answer", "find . -type f -newer go.mod", "tar -xf tree.tar -C out",
	}
	if !f.place.Instructions { // there, filling the build cache takes minutes
		lines = append(lines, "go build -o out/program .")
	}
	for _, line := range lines {
		command, err := fields(line)
		if err != nil {
			return nil, nil, err
		}
		j := job{Do: "run", Path: repository, Command: command, Environ: environ, N: f.repeat(3, 2), CPU: f.place.Instructions}
		name := strings.Join(strings.Fields(line)[:2], " ")
		none, confined, landlock := "none "+name, "confined "+name, "landlock "+name
		samples = append(samples,
			sample{name: none, state: nothing, worker: agentName, job: j},
			sample{name: landlock, state: nothing, worker: landlockName, job: j},
			sample{name: confined, state: enforced, worker: agentName, job: j},
		)
		figures = append(figures,
			figure{name, "none", ratio(confined, none), atMost(1.01), "x"},
			figure{name + ", added", "added by Landlock", added(confined, landlock, none), atMost(0.1), "x"},
			figure{name + ", Landlock", "none", ratio(landlock, none), reach{}, "x"},
		)
	}
	return samples, figures, nil
}

// repository makes a Go module of many packages under git, and an archive of it.
func (f *fixture) repository(dir string) error {
	imports, calls := &strings.Builder{}, &strings.Builder{}
	for d := range loopDirs {
		for i := range loopFiles {
			text := fmt.Sprintf("package p%d\n\n// Answer%d is an answer.\nfunc Answer%d() int { return %d }\n", d, i, i, d*i) +
				strings.Repeat("// Nothing is said here, at some length, as in most files.\n", 40)
			if _, err := f.file(fmt.Sprintf("%s/internal/p%d/f%d.go", dir, d, i), text); err != nil {
				return err
			}
		}
		fmt.Fprintf(imports, "import \"example.org/loop/internal/p%d\"\n", d)
		fmt.Fprintf(calls, "\tprintln(p%d.Answer0())\n", d)
	}
	for name, text := range map[string]string{
		"go.mod": "module example.org/loop\n\ngo 1.21\n", "out/.keep": "", ".gitignore": "out\ntree.tar\n",
		"main.go": "package main\n\n" + imports.String() + "\nfunc main() {\n" + calls.String() + "}\n",
	} {
		if _, err := f.file(filepath.Join(dir, name), text); err != nil {
			return err
		}
	}
	for _, line := range []string{
		"git init -q", "git add .", "git -c user.name=n -c user.email=e@example.org commit -q -m tree", "tar -cf tree.tar internal main.go",
	} {
		command, err := fields(line)
		if err != nil {
			return err
		}
		c := exec.Command(command[0], command[1:]...)
		c.Dir, c.Env = dir, append(os.Environ(), "HOME="+f.tree)
		if output, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, output)
		}
	}
	return nil
}
