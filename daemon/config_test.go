// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// settings of the example: all are commented out. Prose has one blank after #.
var settings = regexp.MustCompile(`(?m)^#([^ \n]|  )`)

func TestExampleConfigHasEverySettingAtItsDefault(t *testing.T) {
	text, err := os.ReadFile("../deploy/systemd/bailiffd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c := load(t, string(text)); !reflect.DeepEqual(c, Defaults()) {
		t.Errorf("as it is shipped it changes something: %+v", c)
	}
	text = settings.ReplaceAll(text, []byte("$1"))
	c := load(t, string(text))
	if err := c.check(); err != nil {
		t.Error(err)
	}
	eachSetting(reflect.TypeFor[Config](), func(name string) {
		if !strings.Contains(string(text), name+":") {
			t.Errorf("%s is missing", name)
		}
	})
	c.Launch, c.Capacity = nil, Capacity{} // there an example; here the kernel object has the defaults
	if !reflect.DeepEqual(c, Defaults()) {
		t.Errorf("uncommented it says %+v, the defaults are %+v", c, Defaults())
	}
}

func eachSetting(structure reflect.Type, visit func(name string)) {
	for field := range structure.Fields() {
		visit(field.Tag.Get("yaml"))
		inner := field.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			eachSetting(inner, visit)
		}
	}
}

func TestConfigRefusesWhatItDoesNotKnow(t *testing.T) {
	for text, want := range map[string]string{
		"stateDri: /x\n":                "stateDri",
		"log: {keep: many}\n":           "many",
		"capacity: {states: -1}\n":      "-1",
		"launch: [{group: a, agnt: b}]": "agnt",
	} {
		if _, err := LoadConfig(write(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func load(t *testing.T, text string) Config {
	t.Helper()
	c, err := LoadConfig(write(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bailiffd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
