// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"bailiff.dev/bailiff/bpf"
)

// DefaultConfig is where bailiffd looks for its configuration.
const DefaultConfig = "/etc/bailiff/bailiffd.yaml"

// Config is bailiffd's configuration file. Flags of the same names win.
type Config struct {
	StateDir   string `yaml:"stateDir"`   // policies, sessions and the log
	RunDir     string `yaml:"runDir"`     // admin.sock and agent.sock
	PinDir     string `yaml:"pinDir"`     // on bpffs
	Cgroup     string `yaml:"cgroup"`     // below the cgroup v2 root: parent of the sessions' cgroups
	Metrics    string `yaml:"metrics"`    // loopback address of /metrics, /healthz, /readyz; "off": none
	Tier       string `yaml:"tier"`       // auto, full or basic
	AdminGroup string `yaml:"adminGroup"` // its members may do what root may on admin.sock; "": root alone
	Canary     string `yaml:"canary"`     // how often it is tried whether what must be denied is: 100ms to 1m; "off": never

	// MaxProcesses is how many processes and threads all sessions together may have,
	// and each half as many; 0: three quarters of what the host can have.
	MaxProcesses uint32 `yaml:"maxProcesses"`

	// Launch lets the members of groups start sessions of named agents.
	Launch []LaunchRule `yaml:"launch"`

	Log      LogConfig    `yaml:"log"`
	Grants   GrantsConfig `yaml:"grants"`
	Capacity Capacity     `yaml:"capacity"`
}

// LaunchRule lets a group start sessions.
type LaunchRule struct {
	Group  string   `yaml:"group"`
	Agents []string `yaml:"agents"` // names, SPIFFE IDs, or patterns ending in "/*"
}

// LogConfig is about the event log.
type LogConfig struct {
	MaxBytes int64 `yaml:"maxBytes"` // at which a file is rotated
	Keep     int   `yaml:"keep"`     // rotated files
	Queue    int   `yaml:"queue"`    // events that may wait for the disk

	// Events of one agent, a second, and at once after none for a while. What is
	// beyond is counted and not told.
	Rate  uint32 `yaml:"rate"`
	Burst uint32 `yaml:"burst"`
}

// GrantsConfig bounds what may be granted.
type GrantsConfig struct {
	MaxTTL time.Duration `yaml:"maxTTL"` // how long a grant lasts at most
}

// Capacity is how much the kernel's tables hold; see bpf.Sizes.
type Capacity struct {
	States      uint32 `yaml:"states"`
	Transitions uint32 `yaml:"transitions"`
	GlobNodes   uint32 `yaml:"globNodes"`
	Addresses   uint32 `yaml:"addresses"`
	Ports       uint32 `yaml:"ports"`
	Sessions    uint32 `yaml:"sessions"`
	Grants      uint32 `yaml:"grants"`
	RingBytes   uint32 `yaml:"ringBytes"`
}

// Defaults returns the configuration of a host that has none.
func Defaults() Config {
	return Config{
		StateDir: "/var/lib/bailiff", RunDir: "/run/bailiff", PinDir: "/sys/fs/bpf/bailiff",
		Cgroup: "bailiff", Metrics: "127.0.0.1:9464", Tier: "auto", Canary: "3s",
		Log:    LogConfig{MaxBytes: 64 << 20, Keep: 16, Queue: 1 << 16, Rate: 500, Burst: 20000},
		Grants: GrantsConfig{MaxTTL: 24 * time.Hour},
	}
}

// LoadConfig reads a configuration file over the defaults. That the default file
// is missing is no error.
func LoadConfig(path string) (Config, error) {
	c := Defaults()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && path == DefaultConfig {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, fmt.Errorf("read the configuration %s: %w", path, err)
	}
	return c, nil
}

// check says what is wrong with a configuration.
func (c *Config) check() error {
	for name, value := range map[string]string{
		"stateDir": c.StateDir, "runDir": c.RunDir, "pinDir": c.PinDir, "cgroup": c.Cgroup,
	} {
		if value == "" {
			return fmt.Errorf("check the configuration: %s is empty", name)
		}
	}
	switch c.Tier {
	case "auto", "full", "basic":
	default:
		return fmt.Errorf("check the configuration: tier is %q: it is one of auto, full, basic", c.Tier)
	}
	if _, err := c.canaryEvery(); err != nil {
		return err
	}
	if c.Grants.MaxTTL < time.Second {
		return fmt.Errorf("check the configuration: grants.maxTTL is %v: it must be at least a second", c.Grants.MaxTTL)
	}
	if r := c.Capacity.RingBytes; r != 0 && (r&(r-1) != 0 || int(r) < os.Getpagesize()) {
		return fmt.Errorf("check the configuration: capacity.ringBytes is %d: it must be a power of two and at least a page", r)
	}
	return nil
}

// canaryEvery returns the time from one trial to the next; 0: none.
func (c *Config) canaryEvery() (time.Duration, error) {
	if c.Canary == "off" {
		return 0, nil
	}
	every, err := time.ParseDuration(c.Canary)
	if err != nil || every < 100*time.Millisecond || every > time.Minute {
		return 0, fmt.Errorf("check the configuration: canary is %q: it is a time from 100ms to 1m, such as 3s, or off", c.Canary)
	}
	return every, nil
}

func (c *Config) sizes() bpf.Sizes { return bpf.Sizes(c.Capacity) }

// groupID returns the id of a group given by name or number; -1 for "".
func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.Atoi(name); err == nil {
		return n, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("look up group %q: %w: create it (groupadd --system %s), or name another in the configuration", name, err, name)
	}
	return strconv.Atoi(g.Gid)
}

// shutdownTimeout bounds how long requests under way are waited for at the end.
const shutdownTimeout = 5 * time.Second
