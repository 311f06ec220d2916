// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ParsePath returns the components of an absolute path without wildcards: "*" in
// it is a character like any other. The error says what would be right.
func ParsePath(path string) ([]string, error) {
	if err := checkPathText(path); err != nil {
		return nil, err
	}
	if path == "/" {
		return nil, nil
	}
	components := strings.Split(path[1:], "/")
	for _, c := range components {
		switch {
		case c == "." || c == "..":
			return nil, fmt.Errorf("it contains %q, which names no directory of its own: write the path that is meant", c)
		case len(c) > MaxComponent:
			return nil, fmt.Errorf("it has a component of %d bytes: no file name has more than %d", len(c), MaxComponent)
		}
	}
	if len(components) > MaxDepth {
		return nil, fmt.Errorf("it has %d components: at most %d are possible, shorten it", len(components), MaxDepth)
	}
	return components, nil
}

// ParseAddress returns the prefix of an IP address or a network. The error says
// what would be right.
func ParseAddress(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return parseCIDR(text)
	}
	if _, err := netip.ParseAddr(text); err != nil && checkHost(text) == nil {
		return netip.Prefix{}, errors.New("it is a host name: what a name stands for changes, and this build does not follow it; name addresses, as in 10.0.0.1 or 10.0.0.0/8")
	}
	return parseIP(text)
}
