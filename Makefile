# Every job of the house. `make` alone says what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Programs that the end-to-end tests start: real peers, and the tools that build their network.
TEST_PACKAGES := iproute2 iptables nftables util-linux uidmap procps curl nginx wrk \
	haproxy redis-server redis-tools postgresql postgresql-contrib mariadb-server mariadb-client iperf3 \
	prometheus golang-go binutils chromium tmux
DEMO_PACKAGES := iproute2 util-linux

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
	$(CARGO) build --release -p netra -p netra-init

.PHONY: demo
demo: ## A pod in its own network namespace: real traffic intercepted, relayed, measured
	$(call install,$(DEMO_PACKAGES))
	@$(MAKE) --no-print-directory build
	target/release/netra demo $(DEMO_ARGS)

.PHONY: test
test: nextest ## Everything: unit, simulation, real binaries in namespaces against real servers
	$(call install,$(TEST_PACKAGES))
	$(CARGO) test --workspace --doc --quiet
	$(CARGO) build --workspace --quiet --features glommio
	NETRA_REQUIRE_NETNS=$${NETRA_REQUIRE_NETNS-1} \
		$(CARGO) nextest run -p netra --features glommio --no-tests fail -E 'test(glommio)'
	$(CARGO) build --workspace --quiet
	NETRA_REQUIRE_NETNS=$${NETRA_REQUIRE_NETNS-1} \
		$(CARGO) nextest run --workspace --no-tests fail $(TEST_ARGS)

.PHONY: nextest
nextest:
	@$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install --locked --quiet cargo-nextest

.PHONY: check
check: ## Format, lints, docs: warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features glommio --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --quiet

.PHONY: sim
sim: ## The shard on a simulated kernel: SEED=n repeats one, SEEDS=n runs more than 256
	$(if $(SEED),NETRA_SIM_SEED=$(SEED)) $(if $(SEEDS),NETRA_SIM_SEEDS=$(SEEDS)) \
		$(CARGO) test --release -p netra-shards simulation -- --nocapture

.PHONY: netns
netns: nextest ## End-to-end tests whose name contains FILTER
	NETRA_REQUIRE_NETNS=1 $(CARGO) nextest run -p netra -E 'test($(FILTER))' --no-capture

BENCH ?= ../shared/bench
PEERS ?= direct,nginx-stream,haproxy-tcp,envoy-tcp,netra-io_uring,netra-epoll,netra-nopoll
ROUNDS ?= 3
ENVOY_BIN ?= $(firstword $(wildcard /opt/envoyv/lib/python3*/site-packages/envoy/_bin/envoy))

.PHONY: bench-peers
bench-peers: build ## netra beside its peers in one interleaved run (needs $(BENCH), root, nginx, haproxy, wrk)
	rm -rf target/bench && cp -r --no-preserve=mode $(BENCH) target/bench && chmod -R u+x target/bench
	cp loadtest/peers/*.sh target/bench/proxies/
	for layout in 0 1; do PROXY_CPU=$$layout LOAD_CPU=0 NETRA_BIN=$(CURDIR)/target/release/netra ENVOY_BIN=$(ENVOY_BIN) \
		target/bench/run.sh --quick --rounds $(ROUNDS) --proxies $(PEERS) \
		--scenarios idle,raw_max,pp,bulk,churn_max,conns --out target/bench/layout-$$layout.json; done

.PHONY: clean
clean: ## Removes what was built
	$(CARGO) clean
