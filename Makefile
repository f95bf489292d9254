# Margay: build, check, test, run. `make help` lists the targets.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
TOOLS := target/tools
BINARIES := lab margayctl margay-felix margay-fib margay-bgpd margay-controller margay apiserver
APT := bird2 conntrack frr gobgpd iproute2 iputils-ping nftables openbgpd procps python3-venv
KUBECTL_VERSION := 1.37.1
DENY_VERSION := 0.20.2
FUZZ_VERSION := 0.13.2

.DEFAULT_GOAL := help
.PHONY: help build lab lab-down check test fuzz bench bench-bgp bench-policy fmt tools clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## build the release binaries into bin/
	$(CARGO) build --release --locked $(addprefix --bin ,$(BINARIES))
	@mkdir -p bin
	@for b in $(BINARIES); do install -m 0755 $(TARGET)/release/$$b bin/$$b; done

lab: tools build ## bring up the lab, show it, and leave it up
	@PATH="$(CURDIR)/bin:$(CURDIR)/$(TOOLS)/bin:$$PATH" bin/lab up
	@PATH="$(CURDIR)/bin:$(CURDIR)/$(TOOLS)/bin:$$PATH" bin/lab demo

lab-down: ## take the lab down
	@if [ -x bin/lab ]; then bin/lab down; else echo 'no lab: bin/lab is not built'; fi

check: tools ## format, lints, licences, docs, layering
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" cargo-deny --log-level error check bans licenses sources
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked --quiet
	$(CARGO) test --locked --quiet -p arch

test: tools ## every test, in namespaces where they need them (root)
	.ci/test

fuzz: ## fuzz every decoder; FUZZ='bgp_session bfd' for some, MINUTES=10 for each, CMIN=1 to keep what was found
	@.ci/fuzz '$(FUZZ_VERSION)' '$(or $(MINUTES),1)' '$(CMIN)' $(FUZZ)

bench: ## ours beside others: plugin, pods, policy, BGP (root); BENCH='cni -n 30' for a part
	@.ci/tools '$(TOOLS)' '$(KUBECTL_VERSION)' '$(DENY_VERSION)' $(APT) containernetworking-plugins
	$(CARGO) build --release --locked --bin bench $(addprefix --bin ,$(BINARIES))
	@PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" "$${CARGO_TARGET_DIR:-target}/release/bench" $(BENCH)

bench-bgp: ## BGP beside BIRD, FRR, GoBGP (root); BENCH='single-1m -r 3' for a part, BENCH=--help
	@.ci/tools '$(TOOLS)' '$(KUBECTL_VERSION)' '$(DENY_VERSION)' $(APT)
	$(CARGO) build --release --locked --bin bench --bin margay-bgpd --bin margay-fib
	@"$${CARGO_TARGET_DIR:-target}/release/bench" bgp $(BENCH)

bench-policy: ## policy beside a chain for each (root); BENCH='packets -r 100' for a part, BENCH=--help
	@.ci/tools '$(TOOLS)' '$(KUBECTL_VERSION)' '$(DENY_VERSION)' $(APT)
	$(CARGO) build --release --locked --bin bench
	@"$${CARGO_TARGET_DIR:-target}/release/bench" policy $(BENCH)

fmt: ## format the sources
	$(CARGO) fmt --all

tools: ## install what building and testing needs (root for packages)
	@.ci/tools '$(TOOLS)' '$(KUBECTL_VERSION)' '$(DENY_VERSION)' $(APT)

clean: ## remove what was built
	$(CARGO) clean
	rm -rf bin
