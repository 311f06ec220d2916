// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed presets/*.yaml
var presetFiles embed.FS

// PresetNames returns the names of all presets, sorted.
func PresetNames() []string {
	entries, err := presetFiles.ReadDir("presets")
	if err != nil {
		return nil // an embedded directory can always be read
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Preset returns the text of a preset: exactly the lines it adds to a policy.
func Preset(name string) (string, error) {
	text, err := presetFiles.ReadFile("presets/" + name + ".yaml")
	if err != nil {
		return "", fmt.Errorf("find preset %q: there is none of that name; known are %s", name, joinFields(PresetNames()))
	}
	return string(text), nil
}

// loadPreset parses a preset.
func loadPreset(name string) (*Document, error) {
	text, err := Preset(name)
	if err != nil {
		return nil, err
	}
	d := &decoder{file: "preset " + name, preset: true}
	docs := d.documents([]byte(text))
	if err := d.problems.Err(); err != nil {
		return nil, fmt.Errorf("read preset %q: %w", name, err)
	}
	if len(docs) != 1 {
		return nil, fmt.Errorf("read preset %q: it has %d documents instead of one", name, len(docs))
	}
	return &docs[0], nil
}
