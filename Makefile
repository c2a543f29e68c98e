# Builds, installs and tests pg_background for the PostgreSQL that PG_CONFIG names, or for the major version PG, which is fetched if it
# is not installed.

SHELL = /bin/bash
.SHELLFLAGS = -euo pipefail -c

ifdef PG
PG_CONFIG := $(shell scripts/get-postgresql $(PG))
ifeq ($(PG_CONFIG),)
$(error no PostgreSQL $(PG))
endif
ifeq ($(wildcard $(shell $(PG_CONFIG) --includedir-server)/postgres.h),)
export DOCS_RS = 1
export RUSTC_WRAPPER = $(CURDIR)/scripts/shipped-bindings
endif
endif
PG_CONFIG ?= pg_config
CARGO ?= cargo
CARGO_TARGET_DIR ?= $(CURDIR)/target$(PG:%=/pg%)
export PG_CONFIG CARGO_TARGET_DIR
export PGRX_PG_CONFIG_PATH = $(shell command -v $(PG_CONFIG))
ifndef LIBCLANG_PATH
export LIBCLANG_PATH = $(lastword $(sort $(dir $(wildcard /usr/lib/llvm-*/lib/libclang*.so*))))
endif

# Evaluated when a recipe runs: a fresh machine has no PostgreSQL before `setup`.
pg = $(shell $(PG_CONFIG) --$(1))
pg_major = $(shell $(PG_CONFIG) --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
features = $(if $(is_19),--manifest-path pg19/Cargo.toml) --no-default-features --features pg$(pg_major)
# PostgreSQL 19 needs a later pgrx than the locked one, and that pgrx a later Rust.
is_19 = $(filter 19,$(pg_major))
extension_cargo = $(if $(is_19),PATH="$$(scripts/get-rust 1.96):$$PATH") $(CARGO)
pkglibdir = $(DESTDIR)$(call pg,pkglibdir)
extensiondir = $(DESTDIR)$(call pg,sharedir)/extension
bindir = $(DESTDIR)$(call pg,bindir)
mandir = $(DESTDIR)$(call pg,mandir)
pg_regress = $(dir $(call pg,pgxs))../test/regress/pg_regress

library = $(CARGO_TARGET_DIR)/release/libpg_background.so
# The installed library is stripped; STRIP= leaves its symbols.
STRIP ?= -s
# The program for the terminal, which the extension does not need.
program = $(CARGO_TARGET_DIR)/program/pg_background_top
members = -p pg_background_client_tests -p pg_background_bench -p pg_background_top
TEST_THREADS ?= 2
# warm: workers wait for the next job, as by default. fresh: each job of the tests gets a process of its own.
WORKERS ?= warm
export WORKERS
# The client tests that are left out. Those named warm... choose their workers themselves, so they run only with WORKERS=warm; and so do those that
# run thousands of tasks, or compute times, and those for which it does not matter which process has a job.
WITHOUT ?=
export WITHOUT
left_out = $(WITHOUT) $(if $(filter fresh,$(WORKERS)),warm% clients dispatch docs library metrics out_of_memory upgrade \
	$(addprefix tasks_,builds elsewhere enqueue faults history input operations pg_cron ready schedules spec))
client_tests = $(if $(strip $(left_out)),-p pg_background_client_tests $(patsubst tests/client/tests/%.rs,--test %, \
	$(filter-out $(patsubst %,tests/client/tests/%.rs,$(left_out)),$(wildcard tests/client/tests/*.rs))),$(members))

.PHONY: all setup build top top-setup top-tests-setup picture install install-files install-top installed probe-installed uninstall \
	installcheck lint unit regress client regress-fresh client-fresh differential differential-all monitoring regress-forgetful tour demo test test-all \
	bench clean

all: build top

setup:
	@scripts/setup

build: setup
	$(extension_cargo) build --release $(features)

# What the program needs beyond the extension, and its tests.
top-setup: setup
	@pkg-config --exists openssl || scripts/setup libssl-dev
top-tests-setup: top-setup
	@{ command -v tmux && command -v openssl; } >/dev/null || scripts/setup tmux openssl

top: top-setup
	$(CARGO) build --profile program -p pg_background_top

# The picture of it in the documentation, from a run on a throw-away cluster.
picture: installed top
	PROGRAM='$(program)' scripts/picture docs/top.svg

install: build top install-files install-top

extensions = pg_background pg_background_tasks

install-files:
	install -d '$(pkglibdir)' '$(extensiondir)'
	install $(STRIP) -m 755 '$(library)' '$(pkglibdir)/pg_background.so.new'
	mv -f '$(pkglibdir)/pg_background.so.new' '$(pkglibdir)/pg_background.so'
	install -m 644 $(foreach extension,$(extensions),$(extension).control sql/$(extension)--*.sql) '$(extensiondir)/'

install-top:
	install -d '$(bindir)' '$(mandir)/man1'
	install $(STRIP) -m 755 '$(program)' '$(bindir)/pg_background_top'
	install -m 644 top/pg_background_top.1 '$(mandir)/man1/'

uninstall:
	rm -f '$(bindir)/pg_background_top' '$(mandir)/man1/pg_background_top.1'
	rm -f '$(pkglibdir)'/pg_background{,_probe}.so $(foreach extension,$(extensions),'$(extensiondir)/$(extension).control' '$(extensiondir)/$(extension)'--*.sql)

# The installation for the tests, the demo and the benchmark. It uses sudo if the directories are not writable.
installed: build
	@if [ -w '$(call pg,pkglibdir)' ]; then $(MAKE) -s install-files; else sudo $(MAKE) -s install-files \
		PG_CONFIG='$(PG_CONFIG)' CARGO_TARGET_DIR='$(CARGO_TARGET_DIR)'; fi

# The library with what tests ask that SQL cannot (src/probe.rs), under a name of its own, unoptimised and with assertions; the tests that use it
# call this.
probe = $(CARGO_TARGET_DIR)/debug/libpg_background.so
probe-installed: setup
	$(extension_cargo) build $(features) --features probe
	sudo=; [ -w '$(call pg,pkglibdir)' ] || sudo=sudo; \
	$$sudo install -s -m 755 '$(probe)' '$(pkglibdir)/pg_background_probe.so.new'; \
	$$sudo mv -f '$(pkglibdir)/pg_background_probe.so.new' '$(pkglibdir)/pg_background_probe.so'

# Against a running server: PGHOST, PGPORT and PGUSER choose it. TESTS chooses some of the tests.
installcheck:
	@mkdir -p '$(CARGO_TARGET_DIR)/regress'
	$(pg_regress) --inputdir=tests/regress --outputdir='$(CARGO_TARGET_DIR)/regress' --bindir='$(call pg,bindir)' \
		--dbname=contrib_regression --encoding=UTF8 --no-locale $(or $(TESTS),--schedule=tests/regress/schedule --schedule=tests/regress/tasks_schedule)

lint: top-setup
	$(CARGO) fmt --all --check
	scripts/circles
	$(if $(is_19),,$(CARGO) rustc -q --lib $(features) -- --emit=mir && scripts/raw-frames $(CARGO_TARGET_DIR)/debug/deps/pg_background.mir)
	$(if $(is_19),,$(CARGO) clippy --all-targets $(features) -- -D warnings)
	$(if $(is_19),,$(CARGO) clippy $(features) --features probe -- -D warnings)
	diff <(sed -n '/^version/p; /^\[profile.release/,$$p' Cargo.toml) <(sed -n '/^version/p; /^\[profile.release/,$$p' pg19/Cargo.toml)
	$(CARGO) clippy --all-targets $(members) -p pg_background_bindings_test -- -D warnings

unit: setup
	$(extension_cargo) test --lib $(features)
ifdef DOCS_RS
	@echo 'the declarations made by hand are not checked: this server came without headers'
else
	$(CARGO) test -p pg_background_bindings_test
endif

regress: installed
	scripts/cluster run $(MAKE) -s installcheck || { head -n 500 '$(CARGO_TARGET_DIR)/regress/regression.diffs'; exit 1; }

client: installed top-tests-setup
	@scripts/get-other-extensions
	$(CARGO) test --no-fail-fast $(client_tests) -- --test-threads=$(TEST_THREADS)

regress-fresh:
	$(MAKE) -s regress WORKERS=fresh

client-fresh:
	$(MAKE) -s client WORKERS=fresh

# Runs PostgreSQL's own regression files as jobs, on used workers and on new ones. The answers must be the same. TESTS selects some of
# the files.
differential: differential_files = some
differential-all: differential_files = all
differential differential-all: installed
	files=$$(scripts/get-regression-files $(pg_major)); REGRESSION_FILES=$$files \
		$(CARGO) test -p pg_background_client_tests --test differential -- --ignored --nocapture $(differential_files)_files

# Prometheus and its exporters beside a cluster with load: each expression of monitoring/ has numbers there, and each alert fires.
monitoring: installed
	$(CARGO) test -p pg_background_client_tests --test metrics -- --ignored --nocapture

# Only on a server with assertions: the server discards its catalog caches at every opportunity, which takes long.
regress-forgetful:
	$(MAKE) -s regress SETTINGS=debug_discard_caches=1 TESTS='$(forgetful_tests)'
forgetful_tests = setup launch result errors

tour: installed
	demo/run </dev/null | cat

test: setup
	@scripts/test $(STEPS)

# The steps that depend on the server, on each version that can be had, and on a server with assertions.
VERSIONS ?= 14 15 16 17 18 19 18-assertions
test-all: test differential-all monitoring
	set -- ; for version in $(filter-out $(pg_major),$(VERSIONS)); do \
		scripts/get-postgresql $$version >/dev/null || { echo "PostgreSQL $$version cannot be had: not tested"; continue; }; \
		case $$version in *-*) steps='regress client differential-all regress-forgetful' ;; *) steps='lint unit regress client differential' ;; esac; \
		$(MAKE) -s test PG=$$version STEPS="$$steps" || set -- "$$@" $$version; \
	done; [ $$# = 0 ] || { echo "failed on $$*"; exit 1; }

demo: installed
	KEEP=$(KEEP) demo/run

bench: installed
	$(CARGO) run --release -p pg_background_bench

clean:
	$(CARGO) clean

# Packages. The same source gives the same bytes: dependencies have the locked versions, and no path of this machine is in the library.
.PHONY: deb rpm test-deb test-rpm test-image dist
package_dir = $(CARGO_TARGET_DIR)/package
remap = --remap-path-prefix=$(1)=/$(2)
package_flags = $(call remap,$(CURDIR),pg_background) $(call remap,$(or $(CARGO_HOME),$(HOME)/.cargo),cargo) $(call remap,$(package_dir),target)
deb rpm: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)
deb: package_tools = debhelper
rpm: package_tools = rpm
deb rpm:
	@scripts/setup $(package_tools)
	@mkdir -p '$(package_dir)' && >'$(package_dir)/rustfmt.toml'   # the nearest rustfmt.toml decides the format, and so the line numbers, of the generated bindings
	$(MAKE) -s build top CARGO='$(CARGO) --locked' CARGO_TARGET_DIR='$(package_dir)' RUSTFLAGS='$(package_flags)'
	CARGO_TARGET_DIR='$(package_dir)' scripts/package $@

# Tests the package on a root that has only Debian and the package.
test-deb: deb
	@scripts/setup mmdebstrap
	scripts/test-deb '$(package_dir)'/postgresql-$(pg_major)-pg-background_*.deb

# Tests the package on a root that has nothing else, as an update of the C release, too.
test-rpm: rpm
	scripts/test-rpm '$(package_dir)'/pg_background_$(pg_major)-$(version)-1*.rpm

# Builds the image, runs it, and has a task done there.
test-image:
	@scripts/setup mmdebstrap buildah
	scripts/test-image $(pg_major)

# The archive for PGXN, made from the last commit.
version = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
dist:
	@mkdir -p '$(package_dir)'
	git archive --format=zip --prefix='pg_background-$(version)/' --output='$(package_dir)/pg_background-$(version).zip' HEAD
