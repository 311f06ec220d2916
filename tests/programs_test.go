// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// program is an ordinary program at its ordinary work.
type program struct {
	name  string
	needs []string // in PATH, besides bash
	// script runs in a session, in a directory of its own below the tree. It must
	// succeed without a denial.
	script string
	native bool // takes a minute or more in a guest without KVM
	// denied lists what may be denied all the same, by prefix.
	denied []string
}

func programs() []program { return append(tools(), languages()...) }

func tools() []program {
	return []program{
		{name: "bash", script: `
for i in 1 2 3; do echo "line $i"; done > in
sort -r in | tee copy | awk '{ print $2 }' | tr '\n' ' ' | grep -q '3 2 1'
cat <<< here > here; read word < here; test "$word" = here
diff <(sort in) <(sort copy)
( exit 3 ) || test $? = 3
sleep 0.1 & wait $!
printf '%s\n' *.none in > list; wc -l < list; date > /dev/null; id -un; uname -r`},
		{name: "tar", script: `
mkdir -p d/e; echo 1 > d/a; echo 2 > d/e/b; ln -s a d/link; ln d/a d/hard
tar -czf d.tar.gz d; tar -tzf d.tar.gz > /dev/null
mkdir out; tar -xzf d.tar.gz -C out; diff -r d out/d; cp -a d copy; mv copy moved; rm -r moved`},
		{name: "find, grep, sed", script: `
mkdir -p src/sub; echo 'func a() {}' > src/a.go; echo 'func b() {}' > src/sub/b.go
find . -name '*.go' -newer src -o -name '*.go' | sort > found; test "$(wc -l < found)" = 2
grep -rn 'func' src | grep -c . | grep -qx 2
find src -name '*.go' -exec sed -i 's/func/fn/' {} +
grep -q 'fn b' src/sub/b.go; find src -type f -print0 | xargs -0 chmod 600; find src -delete`},
		// A hard link to an object of the remote would make it writable: git clone tries
		// one, is refused, and copies.
		{name: "git", needs: []string{"git"}, denied: []string{"link %DIR%/remote/repo.git/objects/"}, script: `
git clone -q %DIR%/remote/repo.git clone; cd clone
git config user.email agent@example.org; git config user.name agent
git status --short; git log --oneline; echo more >> file; git add -A; git commit -qm 'more'
git checkout -qb topic; git mv file renamed; git commit -qam 'rename'; git diff --stat main topic
git push -q %DIR%/push.git topic main; git fetch -q origin; git branch -a; git stash list
git gc -q; git rebase -q main; git tag -am note v1; git worktree add -q ../tree main; git -C ../tree status
cd ..; git init -q fresh; cd fresh; git status`},
		{name: "curl", needs: []string{"curl"}, script: `
test "$(curl -sS %HTTP%/hello)" = hello
test "$(curl -sS --cacert %DIR%/ca.pem %HTTPS%/hello)" = hello
curl -sS -o page -D headers --data-binary @headers.in %HTTP%/echo; cmp page headers.in
! curl -sS %HTTPS%/hello 2> error; grep -q certificate error`},
		{name: "ssh-keygen", needs: []string{"ssh-keygen"}, script: `
ssh-keygen -q -t ed25519 -N '' -C agent -f id; ssh-keygen -lf id.pub; ssh-keygen -yf id > again`},
	}
}

func languages() []program {
	return []program{
		{name: "python", needs: []string{"python3"}, script: `
python3 -m venv --without-pip venv
cat > test_it.py <<'PY'
import json, os, subprocess, sqlite3, ssl, tempfile, threading, unittest, urllib.request
class It(unittest.TestCase):
    def test_files(self):
        with tempfile.NamedTemporaryFile() as f: f.write(b'1'); f.flush()
        os.makedirs('d/e'); os.rename('d/e', 'd/f'); os.chmod('d/f', 0o700)
        sqlite3.connect('db').execute('create table t (a)')
    def test_processes(self):
        self.assertEqual(subprocess.check_output(['echo', 'hi']), b'hi\n')
        t = threading.Thread(target=lambda: None); t.start(); t.join()
    def test_network(self):
        self.assertEqual(urllib.request.urlopen('%HTTP%/hello').read(), b'hello')
        c = ssl.create_default_context(cafile='%DIR%/ca.pem')
        self.assertEqual(urllib.request.urlopen('%HTTPS%/hello', context=c).read(), b'hello')
PY
venv/bin/python -m unittest -q`},
		// pip lists /etc in search of *-release, and makes do with /etc/os-release; a policy
		// can't open the list without what is in it.
		{name: "python with pip", needs: []string{"python3"}, native: true, denied: []string{"open /etc"}, script: `
python3 -m venv venv; venv/bin/pip --version`},
		{name: "node", needs: []string{"node"}, script: `
cat > main.js <<'JS'
const fs = require('fs'), http = require('http'), cp = require('child_process')
fs.mkdirSync('d/e', {recursive: true}); fs.writeFileSync('d/e/f', 'x'); fs.renameSync('d/e/f', 'd/g')
if (cp.execFileSync('/usr/bin/cat', ['d/g']).toString() !== 'x') throw new Error('cat')
http.get('%HTTP%/hello', r => r.on('data', b => { if (b.toString() !== 'hello') process.exit(3) }))
const s = http.createServer((q, r) => r.end('own')).listen(0, '127.0.0.1', () =>
  http.get({port: s.address().port, host: '127.0.0.1'}, r => r.on('data', () => s.close())))
JS
node main.js`},
		{name: "go", needs: []string{"go"}, native: true, script: `
export GOCACHE=$PWD/cache GOPATH=$PWD/path GOFLAGS=-mod=mod GOPROXY=off GOTMPDIR=$PWD GOTELEMETRY=off XDG_CONFIG_HOME=$PWD/config
mkdir m; cd m; go mod init example.org/m
printf 'package main\nimport "fmt"\nfunc main() { fmt.Println("built") }\n' > main.go
printf 'package main\nimport "testing"\nfunc TestIt(t *testing.T) {}\n' > main_test.go
CGO_ENABLED=0 go build -o m .; test "$(./m)" = built; CGO_ENABLED=0 go test -vet=off .; gofmt -l .`},
		{name: "go tools", needs: []string{"go"}, script: `
export GOCACHE=$PWD/cache GOPATH=$PWD/path GOPROXY=off GOTMPDIR=$PWD XDG_CONFIG_HOME=$PWD/config
printf 'package p\n\nfunc F() int { return 1 }\n' > p.go
go version; gofmt -l p.go; go mod init example.org/p; go list ./...; go tool compile -complete -p p p.go`},
	}
}

// programsPolicy is added to the example: what these programs need beyond it.
const programsPolicy = `
---
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: programs}
spec:
  subject: {spiffeID: coding-agent}
  presets: [node, go]
  files:
    - {path: %DIR%/push.git, allow: [read, write, create, delete]}
    - {path: %DIR%/push.git/hooks, deny: [write, create, delete]}
    - {path: %DIR%/ca.pem, allow: [read]}
    - {path: /usr/bin/curl, allow: [read, execute]}
    - {path: /usr/bin/ssh-keygen, allow: [read, execute]}
    - {path: /usr/bin/uname, allow: [read, execute]}
  network:
    - {allow: connect, ip: 127.0.0.1, ports: [%HTTPPORT%, %HTTPSPORT%]}
    - {allow: listen, ports: [0-65535]}
`

// examplePolicy is an example with the test's directories in place of its own.
func (h *host) examplePolicy(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "examples", name))
	must(t, err)
	return strings.NewReplacer("/srv/agent/work", h.work, "/srv/agent/remote", filepath.Join(h.dir, "remote")).Replace(string(text))
}

// testPrograms runs ordinary programs under the example's policy and guardrail:
// neither is in their way.
func testPrograms(t *testing.T, h *host) {
	web := newWeb(t, h.dir)
	makeRepositories(t, h)
	h.enforce(t, h.examplePolicy(t, "coding-agent.yaml")+web.expand(programsPolicy)+"---\n"+h.examplePolicy(t, "guardrail.yaml"))
	for _, p := range programs() {
		t.Run(p.name, func(t *testing.T) {
			kerneltest.RequireTool(t, p.needs...)
			if p.native && kerneltest.InVM() {
				t.Skip(kerneltest.SkipReason + "time: it takes a minute or more in a guest without KVM")
			}
			own := filepath.Join(h.work, strings.ReplaceAll(p.name, " ", "-"))
			write(t, filepath.Join(own, "headers.in"), "body\n")
			s := h.shell(t, "coding-agent", "set -e -o pipefail; cd '"+own+"'"+web.expand(p.script))
			if s.code != 0 {
				t.Errorf("exit status %d\nstdout: %s\nstderr: %s", s.code, s.stdout, s.stderr)
			}
			for _, d := range p.wrong(h, s.denials(t)) {
				t.Errorf("denied: %s", d)
			}
		})
	}
}

// makeRepositories makes a repository to clone and one to push to.
func makeRepositories(t *testing.T, h *host) {
	t.Helper()
	kerneltest.RequireTool(t, "git")
	script := `set -e; cd %DIR%; export GIT_CONFIG_GLOBAL=/dev/null
git init -q -b main seed; cd seed; echo 1 > file; git add file
git -c user.name=t -c user.email=t@example.org commit -qm first
git clone -q --bare . %DIR%/remote/repo.git; git init -q --bare -b main %DIR%/push.git`
	if out, err := exec.Command("/bin/bash", "-c", h.expand(script)).CombinedOutput(); err != nil {
		t.Fatalf("make the repositories: %v: %s", err, out)
	}
}

// wrong returns the denials that nothing excuses.
func (p *program) wrong(h *host, denials []string) []string {
	return slices.DeleteFunc(denials, func(d string) bool {
		return slices.ContainsFunc(p.denied, func(prefix string) bool { return strings.HasPrefix(d, h.expand(prefix)) })
	})
}
