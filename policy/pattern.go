// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// pattern is a parsed path: its components, each literal or with wildcards.
type pattern struct {
	components []component
	abstract   bool // an abstract Unix socket: one component, its name
	wild       bool // some component is not literal
	file       bool // a file line of a preset: what it matches has nothing below
}

type componentKind uint8

const (
	literal  componentKind = iota // text is the name itself
	glob                          // text is the glob as written, escapes and all
	anyName                       // "*": any one component
	anyDepth                      // "**": any number of components, none included
)

type component struct {
	kind componentKind
	text string
}

// parsePattern parses the path of a files line or of a Unix socket.
func parsePattern(path string) (pattern, error) {
	if err := checkPathText(path); err != nil {
		return pattern{}, err
	}
	if path == "/" {
		return pattern{}, nil
	}
	var p pattern
	for _, text := range strings.Split(path[1:], "/") {
		c, err := parseComponent(text, MaxComponent)
		if err != nil {
			return pattern{}, err
		}
		p.add(c)
	}
	return p.finish()
}

// parseAbstract parses the name of an abstract Unix socket, without the "@".
func parseAbstract(name string) (pattern, error) {
	if name == "" {
		return pattern{}, errors.New(`the abstract name is empty: write "@" and the name, as in "@tmp-socket"`)
	}
	if strings.ContainsRune(name, 0) || !utf8.ValidString(name) {
		return pattern{}, errors.New("an abstract name with a NUL or a byte that is not UTF-8 can't be written: use a wildcard in its place")
	}
	c, err := parseComponent(name, MaxAbstract)
	if err != nil {
		return pattern{}, err
	}
	if c.kind == anyDepth {
		return pattern{}, errors.New(`"**" has no meaning in an abstract name: write "@*"`)
	}
	return pattern{components: []component{c}, abstract: true, wild: c.kind != literal}, nil
}

// add appends a component; "**" next to "**" says nothing new.
func (p *pattern) add(c component) {
	if n := len(p.components); c.kind == anyDepth && n > 0 && p.components[n-1].kind == anyDepth {
		return
	}
	p.components = append(p.components, c)
	p.wild = p.wild || c.kind != literal
}

func (p pattern) finish() (pattern, error) {
	n := len(p.components)
	last := &p.components[n-1]
	if last.kind == anyDepth {
		last.kind, last.text = anyName, "*"
	} else if n > 1 && last.kind == anyName && p.components[n-2].kind == anyDepth {
		return pattern{}, errors.New(`"/**/*" matches at every depth and would outrank every deeper rule: write "/*", which covers everything below as well`)
	}
	if n > MaxDepth {
		return pattern{}, fmt.Errorf("it has %d components: at most %d are possible, shorten it", n, MaxDepth)
	}
	return p, nil
}

func checkPathText(path string) error {
	switch {
	case path == "":
		return errors.New(`it is empty: write an absolute path, as in "/srv/work"`)
	case len(path) > MaxPath:
		return fmt.Errorf("it has %d bytes: at most %d are possible, shorten it", len(path), MaxPath)
	case strings.HasPrefix(path, "~"):
		return errors.New(`"~" is not expanded: write the home directory in full, as in "/home/me/.ssh"`)
	case path[0] != '/':
		return fmt.Errorf("it is not absolute: write it from the root, as in %q", "/"+path)
	case strings.ContainsRune(path, 0):
		return errors.New("it contains a NUL, which no path can: remove it")
	case !utf8.ValidString(path):
		return errors.New("it is not UTF-8: use a wildcard in place of the byte")
	case path != "/" && strings.HasSuffix(path, "/"):
		return fmt.Errorf("it ends in a slash: write %q, which covers everything below as well", strings.TrimRight(path, "/"))
	case strings.Contains(path, "//"):
		return fmt.Errorf("it contains an empty component: write %q", squeezeSlashes(path))
	}
	return nil
}

func squeezeSlashes(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// parseComponent parses one component of at most limit bytes.
func parseComponent(text string, limit int) (component, error) {
	switch text {
	case "*":
		return component{anyName, text}, nil
	case "**":
		return component{anyDepth, text}, nil
	case ".", "..":
		return component{}, fmt.Errorf("it contains the component %q: write the path without it", text)
	}
	name, wild, err := scanComponent(text)
	if err != nil {
		return component{}, err
	}
	if len(name) > limit {
		return component{}, fmt.Errorf("a name in it has %d bytes: at most %d are possible, shorten it", len(name), limit)
	}
	if wild {
		return component{glob, text}, nil
	}
	return component{literal, name}, nil
}

// scanComponent removes the escapes of a component and tells whether a wildcard
// stood in it unescaped.
func scanComponent(text string) (name string, wild bool, err error) {
	if !strings.ContainsAny(text, `\*?[]{}`) {
		return text, false, nil
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\\':
			i++
			if i == len(text) {
				return "", false, errors.New("it has a backslash with nothing to escape: write two for a backslash itself")
			}
		case '*', '?':
			if c == '*' && strings.HasPrefix(text[i+1:], "*") {
				return "", false, fmt.Errorf(`"**" must be a whole component, not a part of %q: write "*" there`, text)
			}
			wild = true
		case '[', ']':
			return "", false, fmt.Errorf(`character sets such as "[ab]" are not known here: write one line for each, or a backslash before %q for the character itself`, string(c))
		case '{', '}':
			return "", false, fmt.Errorf(`alternatives such as "{a,b}" are not known here: write one line for each, or a backslash before %q for the character itself`, string(c))
		}
		b.WriteByte(text[i])
	}
	return b.String(), wild, nil
}

// escapeComponent returns the text that parses back to the literal name.
func escapeComponent(name string) string {
	if !strings.ContainsAny(name, `\*?[]{}`) {
		return name
	}
	var b strings.Builder
	for i := range len(name) {
		if strings.IndexByte(`\*?[]{}`, name[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(name[i])
	}
	return b.String()
}

// key returns a string that is equal for equal patterns only.
func (p pattern) key() string {
	var b strings.Builder
	if p.abstract {
		b.WriteByte('@')
	}
	for _, c := range p.components {
		b.WriteByte('/')
		b.WriteByte('0' + byte(c.kind))
		b.WriteString(c.text)
	}
	return b.String()
}
