// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse reads the policy documents of one file. It reports every problem it can
// find in one pass, sorted by place; a document with an error is not returned.
// The file's name is only used in positions.
func Parse(file string, content []byte) ([]Document, Problems) {
	d := &decoder{file: file}
	if len(content) > MaxFileSize {
		d.problems = Problems{{
			Severity: Error, Pos: Position{file, 1, 1},
			Message: fmt.Sprintf("the file has %d bytes, more than the %d possible", len(content), MaxFileSize),
			Fix:     "split it into several policies",
		}}
		return nil, d.problems
	}
	docs := d.documents(content)
	d.problems = append(d.problems, Check(docs)...)
	d.problems.Sort()
	return docs, d.problems
}

// Builtin is the name of the guardrail that comes with Bailiff itself. No user's
// document can have it, nor one that begins with it and a dot: those are of other
// documents that come with Bailiff.
const Builtin = "builtin"

// Everyone is a subject that covers every agent; only ParseBuiltin takes it.
const Everyone = "spiffe://*"

// ParseBuiltin is Parse for the documents that come with Bailiff, which have
// names of their own and may be about Everyone. A file that a user wrote must not
// be read by it.
func ParseBuiltin(file string, content []byte) ([]Document, Problems) {
	d := &decoder{file: file, builtin: true}
	docs := d.documents(content)
	return docs, d.problems
}

// decoder turns YAML nodes into documents and collects what is wrong.
type decoder struct {
	file     string
	preset   bool // kind Preset is read, and only that
	builtin  bool // the names of Builtin and the subject Everyone are known
	problems Problems
	errors   int
}

func (d *decoder) documents(content []byte) []Document {
	var docs []Document
	seen := 0
	for dec := yaml.NewDecoder(bytes.NewReader(content)); ; {
		node, err := decodeNode(dec)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			d.syntaxError(err)
			return docs
		}
		if isEmpty(node) {
			continue
		}
		if seen++; seen > MaxDocuments {
			d.errorf(node, "split it into several files", "the file has more than %d documents", MaxDocuments)
			return docs
		}
		before := d.errors
		if doc := d.document(node.Content[0]); d.errors == before {
			docs = append(docs, doc)
		}
	}
	if seen == 0 {
		d.problems = append(d.problems, Problem{
			Severity: Error, Pos: Position{d.file, 1, 1},
			Message: "the file holds no document",
			Fix:     `start one with "apiVersion: ` + APIVersion + `" and "kind: AgentPolicy"`,
		})
	}
	return docs
}

// decodeNode reads one document. The YAML library reports some malformed input
// by panicking; that is a syntax error like any other.
func decodeNode(dec *yaml.Decoder) (node *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: %v", r)
		}
	}()
	node = new(yaml.Node)
	return node, dec.Decode(node)
}

func isEmpty(node *yaml.Node) bool {
	return len(node.Content) == 0 || node.Content[0].ShortTag() == "!!null" && node.Content[0].Kind == yaml.ScalarNode
}

func (d *decoder) syntaxError(err error) {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	pos := Position{File: d.file, Line: 1, Column: 1}
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(message); m != nil {
		if line, err := strconv.Atoi(m[1]); err == nil && line > 0 {
			pos.Line = line
		}
		message = message[len(m[0]):]
	}
	d.problems = append(d.problems, Problem{
		Severity: Error, Pos: pos, Message: "this is no YAML: " + escape(shorten(message, maxQuoted)),
		Fix: "correct the syntax here or just above: indentation by spaces, a blank after each colon, brackets and quotes closed",
	})
	d.errors++
}

// document decodes one AgentPolicy or Guardrail.
func (d *decoder) document(n *yaml.Node) Document {
	doc := Document{Pos: d.pos(n)}
	d.forbidAnchors(n)
	if n.Kind != yaml.MappingNode {
		d.errorf(n, `start with "apiVersion: `+APIVersion+`"`, "a document must be a mapping, not %s", describe(n))
		return doc
	}
	var spec *yaml.Node
	seen := d.object(n, "a document", []string{"apiVersion", "kind", "metadata", "spec"}, func(key string, v *yaml.Node) {
		switch key {
		case "apiVersion":
			if s, ok := d.text(v, key); ok && s != APIVersion {
				d.errorf(v, "write "+APIVersion, "this build does not know apiVersion %q", s)
			}
		case "kind":
			doc.Kind = d.kind(v)
		case "metadata":
			doc.Name = d.metadata(v)
		case "spec":
			spec = v
		}
	})
	d.require(n, seen, "apiVersion", "write apiVersion: "+APIVersion)
	d.require(n, seen, "kind", "write kind: AgentPolicy or kind: Guardrail")
	d.require(n, seen, "metadata", "write metadata: {name: NAME}")
	d.require(n, seen, "spec", "add it; an AgentPolicy's needs a subject, a Guardrail's needs subjects")
	d.spec(&doc, spec)
	return doc
}

func (d *decoder) spec(doc *Document, spec *yaml.Node) {
	if spec == nil {
		return
	}
	switch doc.Kind {
	case KindAgentPolicy, kindPreset:
		doc.Policy = d.agentSpec(spec)
	case KindGuardrail:
		doc.Guardrail = d.guardrailSpec(spec)
	default:
		return // the kind is reported already
	}
	files, network := doc.Files(), doc.Network()
	if n := len(files) + len(network); n > MaxRules {
		d.errorf(spec, "split it into several policies for the same subject", "the document has %d rules, more than the %d possible", n, MaxRules)
	}
	d.checkFileLines(files)
	d.checkNetworkLines(network)
}

func (d *decoder) kind(v *yaml.Node) Kind {
	s, ok := d.text(v, "kind")
	if !ok {
		return ""
	}
	known := []string{string(KindAgentPolicy), string(KindGuardrail)}
	if d.preset {
		known = []string{string(kindPreset)}
	}
	for _, k := range known {
		if s == k {
			return Kind(s)
		}
	}
	d.errorf(v, suggest(s, known), "unknown kind %q", s)
	return ""
}

func (d *decoder) metadata(v *yaml.Node) (name string) {
	known := []string{"name"}
	if d.preset {
		known = append(known, "version")
	}
	seen := d.object(v, "metadata", known, func(key string, v *yaml.Node) {
		if key != "name" {
			return
		}
		s, ok := d.text(v, "metadata.name")
		if !ok {
			return
		}
		if fix := nameProblem(s); fix != "" && !(d.builtin && builtinName(s)) {
			d.errorf(v, fix, "metadata.name %q can't be used", s)
			return
		}
		name = s
	})
	if v.Kind == yaml.MappingNode {
		d.require(v, seen, "name", "write metadata: {name: NAME}")
	}
	return name
}

func builtinName(s string) bool { return s == Builtin || strings.HasPrefix(s, Builtin+".") }

// nameProblem says what would make s a document's name, or nothing if it is one.
func nameProblem(s string) string {
	if len(s) > MaxName {
		return fmt.Sprintf("a name has at most %d bytes", MaxName)
	}
	if builtinName(s) || s == "default" {
		return "the name is reserved: choose another"
	}
	edge := func(c byte) bool { return 'a' <= c && c <= 'z' || isDigit(c) }
	ok := s != "" && edge(s[0]) && edge(s[len(s)-1])
	for i := range len(s) {
		ok = ok && (edge(s[i]) || s[i] == '-' || s[i] == '.')
	}
	if !ok {
		return `a name is lower-case letters, digits, "-" and ".", and starts and ends with a letter or digit`
	}
	return ""
}
