# SPDX-License-Identifier: Apache-2.0

# A clone that belongs to someone else is fine: root builds in it for the demo.
VERSION := $(shell git -c safe.directory='$(CURDIR)' describe --tags --always --dirty 2>/dev/null || echo unknown)
KERNELS ?= 6.1 6.12
FUZZTIME ?= 10s
KILLS ?= 200
PREFIX ?= /usr/local

export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)
GO_BUILD := CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
COMMANDS := bailiffd bailiff
COMPLETIONS := share/bash-completion/completions/bailiff share/zsh/site-functions/_bailiff \
	share/fish/vendor_completions.d/bailiff.fish

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## static binaries into build/
	@mkdir -p build
	$(GO_BUILD) -o build/ $(COMMANDS:%=./cmd/%)

.PHONY: cross
cross: ## binaries for amd64 and arm64 into build/ARCHITECTURE/
	@mkdir -p build/amd64 build/arm64
	GOOS=linux GOARCH=amd64 $(GO_BUILD) -o build/amd64/ $(COMMANDS:%=./cmd/%)
	GOOS=linux GOARCH=arm64 $(GO_BUILD) -o build/arm64/ $(COMMANDS:%=./cmd/%)

.PHONY: generate
generate: ## generated code and kernel objects (needs: scripts/deps generate)
	go generate ./...

.PHONY: check-generated
check-generated: ## rebuild what is generated and compare byte for byte
	scripts/check-generated

.PHONY: lint
lint: ## formatting, go vet, staticcheck, shellcheck
	scripts/lint

.PHONY: test
test: build ## everything: unit, native kernel tests, VM tests; ends with a summary
	scripts/test unit native $(KERNELS:%=vm-%)

.PHONY: test-unit
test-unit: ## tests that need no particular kernel
	scripts/test unit

.PHONY: test-native
test-native: build ## kernel tests on this machine's kernel (as root)
	scripts/test native

.PHONY: test-vm
test-vm: build ## kernel tests in guests; KERNELS="6.1 6.12" chooses
	scripts/test $(KERNELS:%=vm-%)

.PHONY: fuzz
fuzz: ## every fuzz target for a while; FUZZTIME=10s each
	scripts/fuzz $(FUZZTIME)

.PHONY: differential
differential: ## the kernel against the reference evaluator in guests; POLICIES=2000 SEED=1 KERNELS=6.12
	scripts/differential $(KERNELS)

.PHONY: kills
kills: build ## kill the daemon under load, KILLS times (200) in each of KERNELS
	@mkdir -p build/guest
	CGO_ENABLED=0 go test -c -o build/guest/ ./tests
	for kernel in $(KERNELS); do \
		scripts/vm --kernel $$kernel --timeout 7200 -- bash -c \
			'cd tests && BAILIFF_KILLS=$(KILLS) ../build/guest/tests.test -test.v -test.timeout 2h -test.run TestKills' || exit; \
	done

.PHONY: boot
boot: build ## boot guests with systemd and the installed units, and look; KERNELS chooses
	@scripts/deps vm boot
	@scripts/boot-test $(KERNELS)

.PHONY: escape
escape: build ## every known way out of a session, tried in guests; KERNELS chooses, ONLY=REGEXP, UPDATE=1
	@UPDATE=$(UPDATE) ONLY='$(ONLY)' scripts/escape $(KERNELS)

.PHONY: stress
stress: build ## 200 sessions through changes of 10,000 policies, here (as root) and in guests; STRESS=10m KERNELS=6.12
	scripts/stress native $(KERNELS)

.PHONY: bench
bench: ## measurements against no enforcement and Landlock (as root); ROW=B2 chooses one
	scripts/bench $(ROW)

.PHONY: demo
demo: ## a real agent session, watched (as root)
	@scripts/deps demo
	@$(MAKE) --no-print-directory build
	@examples/demo

.PHONY: demo-vm
demo-vm: ## the same in a VM, where everything can be enforced
	@scripts/deps vm demo
	@$(MAKE) --no-print-directory build
	@echo "starting a VM, which takes a minute or two where there is no KVM"
	@scripts/vm --timeout 600 -- examples/demo

.PHONY: install
install: ## what was built, systemd units and completions, below DESTDIR and PREFIX
	install -D -m 755 build/bailiff $(DESTDIR)$(PREFIX)/bin/bailiff
	install -D -m 755 build/bailiffd $(DESTDIR)$(PREFIX)/sbin/bailiffd
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,lib/systemd/system $(dir $(COMPLETIONS)))
	for unit in bailiffd bailiff-enforce; do \
		sed 's#/usr/local/#$(PREFIX)/#' deploy/systemd/$$unit.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit.service || exit; \
	done
	build/bailiff completion bash >$(DESTDIR)$(PREFIX)/$(word 1,$(COMPLETIONS))
	build/bailiff completion zsh >$(DESTDIR)$(PREFIX)/$(word 2,$(COMPLETIONS))
	build/bailiff completion fish >$(DESTDIR)$(PREFIX)/$(word 3,$(COMPLETIONS))
	test -e $(DESTDIR)/etc/bailiff/bailiffd.yaml || \
		install -D -m 644 deploy/systemd/bailiffd.yaml $(DESTDIR)/etc/bailiff/bailiffd.yaml

.PHONY: clean
clean: ## remove build/ (downloaded kernels stay in the cache)
	rm -rf build
