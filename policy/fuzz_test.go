// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// Bounds of what one run of a fuzzer compiles and compares.
const (
	fuzzSubjects  = 4
	fuzzRules     = 60
	fuzzDepth     = 8
	fuzzQuestions = 40
)

// FuzzParse: whatever the bytes of a file, its problems have places in it and can
// be printed; what has none compiles, or the compiler says where and why not.
func FuzzParse(f *testing.F) {
	for _, text := range nastyFiles(f) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		docs, ps := Parse("f.yaml", content)
		lines := lineLengths(string(content))
		checkProblems(t, ps, lines)
		if len(docs) == 0 && !ps.Has(Error) {
			t.Error("no document, and no error says why")
		}
		compileAll(t, docs, lines)
	})
}

// FuzzCompile makes policies out of lines, as patternPolicy reads them, and
// compares what they compile to with the reference on a path.
func FuzzCompile(f *testing.F) {
	f.Add("+/srv\n-/srv/keys\n+/srv/keys/public\n-/srv/*.db\n+/srv/scratch.db", "/srv/keys/public")
	f.Add("+/**/a\n-/a/**\n!/**/.ssh\n+/a/b/*", "/a/b/a/.ssh/x")
	f.Add("+/*a*a*a*a*a\n-/?a??a*\n+/a\\*\\?", "/aaaaaaaa")
	f.Add("@@a*\n@/run/*.sock\n^@ab\n!@@abc", "@abc")
	f.Add("+/proc/self\n-/proc/self/environ\n+/**/self/*b*", "/proc/self/environ")
	f.Add("n10.0.0.0/8\nd10.1.0.0/16\nn10.1.2.3/32\nd::/0\nn169.254.0.0/16", "/")
	f.Add("+/**/**/**/**/x\n+/a/**/b/**/c/**/d\n-/**/*/**/*x", "/a/b/c/d/x")
	f.Add("+/\u00e9\u0085*\n-/ \u2028/\\[x\\]", "/\u00e9\u0085 /x")
	f.Fuzz(func(t *testing.T, lines, path string) {
		text, ok := patternPolicy(lines)
		if !ok {
			t.Skip("too much for one run")
		}
		docs, ps := Parse("f.yaml", []byte(text))
		checkProblems(t, ps, lineLengths(text))
		q := questions{generator: generator{rand.New(rand.NewPCG(hash(lines), hash(path)))}, words: strings.Split(path, "/")}
		compileAndCompare(t, testAgent, docs, lineLengths(text), &q)
	})
}

// patternPolicy turns each line into one of a policy: after "+" and "-" a path
// that is allowed and denied, after "@" and "^" a Unix socket likewise, after "n"
// and "d" a network, after "!" a path, or with "!@" a socket, that a guardrail denies.
func patternPolicy(lines string) (text string, ok bool) {
	sections := map[string]string{}
	all := strings.Split(lines, "\n")
	if len(all) > 12 || len(lines) > 400 || !utf8.ValidString(lines) || strings.Count(lines, "**") > 12 {
		return "", false
	}
	for _, l := range all {
		if len(l) < 2 || strings.Count(l, "/") > fuzzDepth {
			continue
		}
		rest := quote(l[1:])
		switch {
		case l[0] == '+':
			sections["files"] += "    - {path: " + rest + ", allow: [read, execute]}\n"
		case l[0] == '-':
			sections["files"] += "    - {path: " + rest + ", deny: [read, write]}\n"
		case l[0] == '@':
			sections["network"] += "    - {allow: connect, unix: " + rest + "}\n"
		case l[0] == '^':
			sections["network"] += "    - {deny: connect, unix: " + rest + "}\n"
		case l[0] == 'n':
			sections["network"] += "    - {allow: connect, cidr: " + rest + ", ports: [80-443], protocol: any}\n"
		case l[0] == 'd':
			sections["network"] += "    - {deny: connect, cidr: " + rest + ", ports: [100]}\n"
		case strings.HasPrefix(l, "!@"):
			sections["guarded sockets"] += "    - {deny: connect, unix: " + quote(l[2:]) + "}\n"
		case l[0] == '!':
			sections["guarded files"] += "    - {path: " + rest + ", deny: [read]}\n"
		}
	}
	text = head
	for _, part := range []struct{ section, title string }{
		{"files", "  files:\n"}, {"network", "  network:\n"},
		{"guarded files", "---\n" + guardHead + "  files:\n"},
		{"guarded sockets", "---\n" + strings.Replace(guardHead, "name: g", "name: s", 1) + "  network:\n"},
	} {
		if body := sections[part.section]; body != "" {
			text += part.title + body
		}
	}
	return text, true
}

// compileAll compiles documents for their subjects, where they are small, and
// compares what comes out with the reference.
func compileAll(t *testing.T, docs []Document, lines []int) {
	t.Helper()
	rules := 0
	for i := range docs {
		rules += len(docs[i].Files()) + len(docs[i].Network()) + 20*len(docs[i].Policy.Presets)
	}
	subjects := Subjects(docs)
	if rules > fuzzRules || len(subjects) > fuzzSubjects {
		return
	}
	for _, s := range subjects {
		q := questions{generator: generator{rand.New(rand.NewPCG(hash(s), 1))}}
		compileAndCompare(t, s, docs, lines, &q)
	}
}

func compileAndCompare(t *testing.T, agent string, docs []Document, lines []int, q *questions) {
	t.Helper()
	r, ps := Compile(agent, docs)
	again := slices.Clone(docs)
	slices.Reverse(again)
	other, _ := Compile(agent, again)
	switch {
	case (r == nil) != (other == nil):
		t.Fatal("whether it compiles depends on the order of the documents")
	case r == nil && len(docs) > 0 && !ps.Has(Error):
		t.Fatalf("nothing compiled for %q, and no error says why", agent)
	case r == nil:
		checkCompiler(t, ps, lines)
		return
	case r.Digest != other.Digest:
		t.Fatal("compiling twice gives different digests")
	}
	checkCompiler(t, ps, lines)
	checkTexts(t, r)
	ref, err := NewReference(agent, docs)
	if err != nil {
		t.Fatal(err)
	}
	for i := range docs {
		for _, l := range docs[i].Files() {
			q.learn(l.Path)
		}
		for _, l := range docs[i].Network() {
			q.learn(strings.TrimPrefix(l.Unix, "@"))
			q.prefixes = append(q.prefixes, l.prefixes...)
		}
	}
	for range fuzzQuestions {
		path := q.path()
		comparePath(t, ref, r, path)
		compareAddress(t, ref, r, q.address(), pick[uint16](q.generator, 0, 79, 80, 100, 443, 8080, 65535), q.generator)
	}
}

// questions asks about what is near to the patterns of a policy.
type questions struct {
	generator
	words    []string
	prefixes []netip.Prefix
}

func (q *questions) learn(pattern string) {
	for _, w := range strings.Split(pattern, "/") {
		q.words = append(q.words, w, strings.NewReplacer("*", "", "?", "x", `\`, "").Replace(w), strings.ReplaceAll(w, "*", "ab"))
	}
}

func (q *questions) path() []string {
	usable := slices.DeleteFunc(slices.Clone(q.words), func(w string) bool { return w == "" || w == "." || w == ".." || strings.Contains(w, "\x00") })
	usable = append(usable, "a", ".env")
	if q.IntN(6) == 0 {
		return []string{abstractName, pick(q.generator, usable...)}
	}
	var path []string
	for range q.IntN(fuzzDepth) {
		path = append(path, pick(q.generator, usable...))
	}
	return path
}

// address is one within, or just outside of, a prefix of the policy.
func (q *questions) address() netip.Addr {
	p := pick(q.generator, append(q.prefixes, netip.MustParsePrefix("169.254.169.254/32"), netip.MustParsePrefix("fd00::/8"))...)
	addr := p.Addr()
	if next := addr.Next(); next.IsValid() && q.IntN(2) == 0 {
		return next
	}
	return addr
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}

// nastyFiles are the examples, and what a parser may stumble over.
func nastyFiles(f *testing.F) []string {
	texts := append(longWords(1<<12), []string{
		head + "  mode: audit\n",
		files(`{path: "/a/**/.env", deny: [read]}`),
		network(`{allow: connect, cidr: "::ffff:10.0.0.0/104", ports: [1, "5-9"], protocol: any}`),
		guardHead + "  network:\n    - {deny: connect, unix: '@*'}\n---\n" + head,
		head + "  capabilities: [CHOWN, cap_setuid]\n",
		head + "  mode: audit\n...\n%YAML 1.1\n---\n" + head,
		head + "  files: &a [&b [*a, *b], *b]\n",
		"a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: [*c, *c, *c, *c]\n",
		strings.ReplaceAll(files(`{path: /a, allow: [read]}`), "\n", "\r"),
		strings.ReplaceAll(files(`{path: /a, allow: [raed]}`), "\n", "\u2028"),
		network(`{allow: connect, ip: 10.0.0.1, ports: [18446744073709551616, 0x50, 1e9999, -1, 0o17]}`),
		head + "  environment: {set: {A: " + strings.Repeat("9", 5000) + "}}\n",
		head + "  mode: \"\xff\xfe\"\n",
		"\xff\xfea\x00:\x00 \x001\x00",
		"\xfe\xff\x00a\x00:\x00 \x001",
		head + "? {a: b}\n: c\n",
		head + "  mode: |\n    enforce\n  files: >-\n    x\n",
		strings.Repeat("---\n", 200) + head,
		strings.Repeat("- ", 3000) + "a",
		strings.Repeat("{a: ", 3000),
	}...)
	examples, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(examples) == 0 {
		f.Fatalf("no examples: %v", err)
	}
	for _, name := range examples {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	return texts
}

// longWords are files with words of that many bytes.
func longWords(n int) []string {
	word := strings.Repeat("w", n)
	return []string{
		strings.Replace(head, "name: p", "name: "+word, 1),
		strings.Replace(head, "spiffeID: a", "spiffeID: "+word, 1),
		files(`{path: /` + word + `, allow: [` + word + `]}`),
		files(`{path: ` + strings.Repeat("9", n) + `, allow: {? ` + word + `: ` + word + `}}`),
		network(`{allow: ` + word + `, cidr: ` + word + `, ports: [` + word + `], protocol: ` + word + `}`),
		head + "  ? " + word + "\n  : 1\n",
		head + "  capabilities: [" + word + ", !" + word + " KILL]\n",
		head + "  environment: {drop: [" + word + "*-], set: {? " + word + ": " + word + "}}\n",
		head + "  files: *" + word + "\n",
	}
}

// TestLongWords: a message does not repeat a megabyte.
func TestLongWords(t *testing.T) {
	for _, text := range longWords(1 << 20) {
		docs, ps := Parse("f.yaml", []byte(text))
		if len(docs) == 0 && !ps.Has(Error) {
			t.Errorf("no document, and no error says why: %.200s", text)
		}
		checkProblems(t, ps, lineLengths(text))
		compileAll(t, docs, lineLengths(text))
	}
}
