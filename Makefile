# Every job of the house. `make` alone says what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Programs that the end-to-end tests start: real peers, and the tools that build their network.
TEST_PACKAGES := iproute2 tinyproxy-bin iptables nftables util-linux uidmap procps curl nginx wrk strace chromium \
	libcap2-bin systemd python3-venv hey apache2-bin apache2-utils gunicorn nodejs openssl \
	python3 python3-requests python3-httpx python3-aiohttp python3-websockets \
	etcd-server etcd-client haproxy redis-server redis-tools postgresql postgresql-contrib mariadb-server mariadb-client iperf3 \
	prometheus golang-go binutils tmux docker-compose tshark memcached libmemcached-tools \
	faketime nats-server mosquitto rabbitmq-server zookeeperd nghttp2-client nghttp2-server \
	python3-mysqldb libmariadb-java libpostgresql-jdbc-java bsh pgbouncer
DEMO_PACKAGES := iproute2 util-linux
# binutils has readelf, libcap2-bin setcap.
IMAGE_PACKAGES := binutils libcap2-bin debootstrap
# What `netra --version` says that it was built from; lazily, as only builds that ship need it.
COMMIT = $(shell git rev-parse --short=12 HEAD 2>/dev/null)
# Where `make manifests` has Helm and the schemas.
VENV := $(or $(CARGO_TARGET_DIR),target)/manifests

# Installs the packages that are missing; says which, and needs root only then.
define install
	@missing=(); for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q '^install ok' \
		|| missing+=($$p); done; \
	if [ $${#missing[@]} -gt 0 ]; then echo "installing: $${missing[*]}"; \
		export DEBIAN_FRONTEND=noninteractive; sudo=$$([ $$(id -u) = 0 ] || echo sudo); \
		$$sudo apt-get -qq update; \
		$$sudo apt-get -qq install --no-install-recommends -y "$${missing[@]}" >/dev/null; fi
endef

.PHONY: help
help: ## What there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: build
build: ## netra and netra-init, optimised, in target/release
	NETRA_COMMIT=$(COMMIT) $(CARGO) build --release -p netra -p netra-init

.PHONY: images
images: ## Container images with the Docker engine: netra, netra-init, netra-init-iptables, netra-control
	@docker info >/dev/null 2>&1 || { echo "*** SKIPPED: no Docker engine answers here ***"; exit 0; }; \
		$(MAKE) --no-print-directory image-tools && docker/images.sh

.PHONY: release
release: ## Static programs for x86-64 and arm64 with SBOM, notes and sums, in target/dist
	hosts/release.sh

.PHONY: reproducible
reproducible: ## Builds the static programs of this machine twice, in two places: same source, same bytes
	TWICE=1 NO_SBOM=1 hosts/release.sh $(shell uname -m)

.PHONY: deb
deb: ## Debian package, in target/debian
	@$(CARGO) deb --version >/dev/null 2>&1 || $(CARGO) install --locked --quiet cargo-deb
	CARGO_TARGET_DIR=target NETRA_COMMIT=$(COMMIT) $(CARGO) build --quiet --profile ship -p netra -p netra-init
	CARGO_TARGET_DIR=target $(CARGO) run --quiet -p netra-init --example pages -- target/pages
	@for page in man:netra.8 completions\ bash:netra.bash completions\ zsh:_netra completions\ fish:netra.fish; do \
		target/ship/netra $${page%%:*} >target/pages/$${page#*:}; done
	CARGO_TARGET_DIR=target $(CARGO) deb --no-build --no-strip --profile ship

.PHONY: deb-check
deb-check: deb ## Makes the Debian package and looks at it: files, programs, lintian (minutes)
	$(call install,lintian)
	hosts/check.sh "$$(ls -t target/debian/netra_*.deb | head -1)"

.PHONY: manifests
manifests: ## Checks docker/kubernetes and compose.yaml: schemas, Helm, kustomize
	$(call install,python3-venv)
	@test -x $(VENV)/bin/python || python3 -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -r docker/kubernetes/requirements.txt
	@$(VENV)/bin/python docker/kubernetes/check.py 2> >(grep -v 'found symbolic link' >&2)

.PHONY: control-load
control-load: ## Ten thousand simulated sidecars of one netra-control, with a real etcd (docs/CONTROL.md)
	$(call install,etcd-server)
	@$(CARGO) build --quiet --release -p netra-control --bin netra-control --example ten_thousand
	@taskset -c 1 $(or $(CARGO_TARGET_DIR),target)/release/examples/ten_thousand \
		$(or $(CARGO_TARGET_DIR),target)/release/netra-control

.PHONY: image-tools
image-tools:
	$(call install,$(IMAGE_PACKAGES))

.PHONY: demo
demo: ## Real traffic intercepted and measured; a request through five services, traced and steered
	$(call install,$(DEMO_PACKAGES))
	@$(MAKE) --no-print-directory build
	target/release/netra demo $(DEMO_ARGS)

.PHONY: test
test: nextest span-venv test-packages ## Everything: unit, simulation, real binaries in namespaces against real servers
	@# Always of the whole workspace, as features of dependencies come from all who are asked for: one
	@# package alone would build a hundred of them once more. The programs are built with their tests.
	$(CARGO) nextest run --workspace --no-run
	$(CARGO) test --workspace --doc --quiet
	$(CARGO) nextest run --workspace --lib --features netra/jaeger-sdk --no-tests fail \
		-E 'package(netra) & test(an_agent)'
	@# Of the tests one alone knows that host: the others are not linked for it.
	NETRA_REQUIRE_NETNS=$${NETRA_REQUIRE_NETNS-1} $(CARGO) nextest run --workspace --test transparency \
		--features netra/glommio --no-tests fail -E 'test(glommio)'
	@$(MAKE) --no-print-directory example-codec test-images manifests
	NETRA_REQUIRE_NETNS=$${NETRA_REQUIRE_NETNS-1} \
		$(CARGO) nextest run --workspace --no-tests fail $(TEST_ARGS)

# Minutes of the network and of one core: .ci/run has it done while the lints are built.
.PHONY: test-packages
test-packages:
	$(call install,$(TEST_PACKAGES) $(IMAGE_PACKAGES))

.PHONY: test-images
test-images: image-tools
	$(call install,iptables)
	@PROFILE=dev TAG=$${NETRA_TEST_TAG-test} BASE=machine docker/images.sh netra netra-init netra-init-iptables netra-control netra-test

.PHONY: nextest
nextest:
	@$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install --locked --quiet cargo-nextest

# Decoders of spans, clients and servers that are not ours, in versions of their own, for the tests.
SPAN_VENV := target/span-venv
PEERS := tests/support/peers/requirements.txt
# The lock is the workspace's, so that what is there already is not built again.
.PHONY: example-codec
example-codec: ## A netra of one's own, of a crate outside of the workspace (docs/CODECS.md)
	cp Cargo.lock examples/codec/Cargo.lock
	cd examples/codec && export CARGO_TARGET_DIR=$(or $(CARGO_TARGET_DIR),$(CURDIR)/target) && \
		$(CARGO) test --quiet && \
		NETRA_PROTOCOLS=7070=orders $(CARGO) run --quiet -- --service-name shop --check-config

.PHONY: span-venv
span-venv: $(SPAN_VENV)/ready
$(SPAN_VENV)/ready: tests/support/span_requirements.txt $(PEERS)
	$(call install,python3-venv)
	python3 -m venv --clear $(SPAN_VENV)
	$(SPAN_VENV)/bin/pip --quiet --disable-pip-version-check install --no-deps -r $<
	$(SPAN_VENV)/bin/pip --quiet --disable-pip-version-check install -r $(PEERS)
	touch $@

.PHONY: check
check: ## Format, lints, docs: warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features glommio,jaeger-sdk --quiet -- -D warnings
	@# Libraries and the program that has none; examples too, as with what they ask for no dependency is
	@# checked once more.
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --lib --bin netra-control --examples --no-deps \
		--document-private-items --quiet

# Newer ones may want a newer compiler. A quick build of it is worth more than a quick program, or than
# one that a debugger knows.
DENY_VERSION := 0.20.2
.PHONY: cargo-deny
cargo-deny:
	@$(CARGO) deny --version >/dev/null 2>&1 \
		|| CARGO_PROFILE_DEV_DEBUG=false $(CARGO) install --debug --locked --quiet --version $(DENY_VERSION) cargo-deny

.PHONY: deny
deny: cargo-deny ## Licences, sources and versions of what we build on, by deny.toml
	$(CARGO) deny check --deny warnings licenses bans sources
	@today=$$(date +%F); while read -r _ day; do [[ $$day > $$today ]] \
		|| echo "deny.toml: an exception was to be looked at again on $$day"; \
		done < <(grep -o 'until 20[0-9-]*' deny.toml | sort -u)

.PHONY: advisories
advisories: cargo-deny ## Known faults of what we build on; needs the advisory database of github.com/RustSec
	@$(CARGO) deny fetch db || { echo "*** NOTHING WAS CHECKED: the advisory database cannot be had here ***"; exit 1; }
	$(CARGO) deny check --disable-fetch --deny warnings advisories

.PHONY: sim
sim: ## The shard on a simulated kernel: SEED=n repeats one, SEEDS=n runs more than 256
	$(if $(SEED),NETRA_SIM_SEED=$(SEED)) $(if $(SEEDS),NETRA_SIM_SEEDS=$(SEEDS)) \
		$(CARGO) test --release -p netra-shards simulation -- --nocapture

.PHONY: bench-check
bench-check: ## Instructions of the shard's works against docs/bench/instructions.txt; UPDATE=1 renews it
	$(call install,valgrind)
	$(CARGO) build --release --quiet -p netra-codecs --example encode
	UPDATE=$(UPDATE) $(CARGO) test --release --quiet -p netra-shards --lib \
		instructions_are_those_committed -- --ignored --nocapture

.PHONY: overhead
overhead: nextest ## Whether netra's own cost, as it says, is what a client measures: within 10 %
	NETRA_REQUIRE_NETNS=1 NETRA_AGREE_PERCENT=10 \
		$(CARGO) nextest run -p netra -E 'test(the_metric_agrees)' --no-capture

.PHONY: fuzz
fuzz: ## Fuzzes a target of codecs/fuzz: TARGET=halves, for TIME=60 seconds
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked --quiet cargo-fuzz
	cd codecs && RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer address $(or $(TARGET),halves) -- \
		-max_total_time=$(or $(TIME),60) -max_len=4096

.PHONY: netns
netns: nextest ## End-to-end tests whose name contains FILTER
	NETRA_REQUIRE_NETNS=1 $(CARGO) nextest run -p netra -E 'test($(FILTER))' --no-capture

BENCH_PACKAGES := iproute2 nftables conntrack nginx libnginx-mod-stream haproxy strace
ENVOY_BIN ?= $(firstword $(wildcard /opt/envoyv/lib/python3*/site-packages/envoy/_bin/envoy))
# A subject whose program is missing, or cannot do it yet, is left out and named in the table.
NETRA_SUBJECTS := netra-io_uring netra-epoll netra-polling netra-http-io_uring netra-http-epoll netra-http-polling
SUBJECTS ?= $(NETRA_SUBJECTS) nginx-stream haproxy-tcp envoy-tcp \
	$(if $(QUICK),,haproxy-splice nginx-http haproxy-http envoy-http)
ROUNDS ?= $(if $(QUICK),2,5)
SECONDS_EACH ?= $(if $(QUICK),0.7,3)
LAYOUTS ?= one-cpu two-cpu

.PHONY: bench
bench: bench-run ## netra beside its peers, into docs/BENCHMARKS.md; QUICK=1 takes under 10 minutes (root)
	target/release/netra-loadtest publish $(LAYOUTS:%=target/bench/%.json) \
		--document docs/BENCHMARKS.md --svg docs/bench/figures.svg

.PHONY: bench-run
bench-run:
	$(call install,$(BENCH_PACKAGES))
	$(CARGO) build --release -p netra -p netra-loadtest
	mkdir -p target/bench
	for layout in $(LAYOUTS); do \
		NETRA_BIN=$${NETRA_BIN-$(CURDIR)/target/release/netra} ENVOY_BIN=$(or $(ENVOY_BIN),envoy) \
		target/release/netra-loadtest compare $(SUBJECTS:%=-s %) --skip-missing --layout $$layout \
		--rounds $(ROUNDS) --seconds $(SECONDS_EACH) --churn-rate 2000 --json target/bench/$$layout.json \
		--html target/bench/$$layout.html; done

# Peers that speak the protocols themselves beside those that only relay them.
PROTOCOL_SUBJECTS ?= netra-epoll netra-tapped-epoll netra-traced-epoll netra-gated-epoll netra-polling \
	netra-tapped-polling netra-traced-polling netra-gated-polling haproxy-tcp envoy-tcp envoy-protocols twemproxy

.PHONY: bench-protocols
bench-protocols: ## Redis, Dubbo and Thrift through netra and its peers, into target/bench (root)
	$(call install,$(BENCH_PACKAGES) nutcracker)
	$(CARGO) build --release -p netra -p netra-loadtest
	mkdir -p target/bench
	for layout in $(LAYOUTS); do \
		NETRA_BIN=$${NETRA_BIN-$(CURDIR)/target/release/netra} ENVOY_BIN=$(or $(ENVOY_BIN),envoy) \
		target/release/netra-loadtest compare $(PROTOCOL_SUBJECTS:%=-s %) --skip-missing --layout $$layout \
		--scenarios redis,dubbo,thrift --rounds $(ROUNDS) --seconds $(SECONDS_EACH) \
		--json target/bench/protocols-$$layout.json; done

# bpftrace needs tracefs and does not mount it; without it strace counts, and no call has a time.
BUDGET ?= target/bench/budget.json
.PHONY: budget
budget: ## What one request and one connection cost, call by call, into docs/PERFORMANCE.md (root)
	$(call install,$(BENCH_PACKAGES) valgrind bpftrace)
	$(CARGO) build --release -p netra -p netra-loadtest
	mkdir -p target/bench
	mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing || true
	NETRA_BIN=$${NETRA_BIN-$(CURDIR)/target/release/netra} target/release/netra-loadtest budget \
		$(addprefix -s ,$(BUDGET_SUBJECTS)) --skip-missing --json $(BUDGET) \
		--markdown docs/PERFORMANCE.md --svg docs/bench/budget.svg

.PHONY: check-harness
check-harness: ## Whether netra-loadtest can be believed here: against wrk, ab and a raw client
	$(call install,wrk apache2-utils)
	$(CARGO) build --release -p netra-loadtest
	target/release/netra-loadtest check

.PHONY: clean
clean: ## Removes what was built
	$(CARGO) clean
