# Cule: eight small programs over one static library. One makefile for all of it; programs are found in cmd/*.
#
#   make            build/bin/*                      make test     what a stranger should see pass (T=name: some of it)
#   make demo       the main job on real input       make lint     layers, sizes, style, shell, man pages
#   make bench      ratios against named peers       make install  PREFIX=/usr/local DESTDIR=
#   make deps       apt packages to build; deps-test, deps-bench: to test, to measure (test, lint, bench, demo
#                   see to it themselves)            make completions   again from the option tables
#
# BUILD=release|debug|asan|tsan|cov|fuzz builds beside the release build, in build/$(BUILD); O=DIR puts it elsewhere.
# Nothing here needs root but the installing of missing packages.

VERSION := 0.1.0
BUILD   ?= release
PREFIX  ?= /usr/local
JOBS    ?= $(shell nproc)
O       := $(if $(filter release,$(BUILD)),build,build/$(BUILD))
ifneq ($(filter default undefined,$(origin CC)),)
CC := gcc
endif
ifeq ($(BUILD),fuzz)
CC := clang
endif

.DEFAULT_GOAL := all
.SUFFIXES:
.DELETE_ON_ERROR:
.SECONDARY:

# --- what to build ---------------------------------------------------------------------------------------
LIB_SRC     := $(sort $(wildcard lib/*/*.c lib/*/*/*.c))
PROGRAMS    := $(sort $(patsubst cmd/%/main.c,%,$(wildcard cmd/*/main.c)))
UNIT_SRC    := $(sort $(wildcard tests/unit/*.c))
FUZZ_SRC    := $(sort $(wildcard tests/fuzz/*.c))
BENCH_SRC   := $(sort $(wildcard tests/bench/*.c))
TESTLIB_SRC := $(sort $(wildcard tests/lib/*.c))
LIB         := $(O)/libcule.a

# --- packages (Debian 12) --------------------------------------------------------------------------------
DEPS       := pkg-config libuv1-dev libsqlite3-dev libsodium-dev libgnutls28-dev libnats-dev
DEPS_TEST  := libcmocka-dev jq file mandoc shellcheck shfmt clang libclang-rt-14-dev clang-format python3 perl \
              gnutls-bin nats-server socat zsh fish procps util-linux binutils git
DEPS_BENCH := libzmq3-dev libnng-dev nats-server jq util-linux

# --- with what -------------------------------------------------------------------------------------------
# pkg-config is asked when the first recipe needs it, and then once: make deps must run before it is there.
PACKAGES   := libuv sqlite3 libsodium gnutls
PKG_CFLAGS  = $(eval PKG_CFLAGS := $$(shell pkg-config --cflags $(PACKAGES)))$(PKG_CFLAGS)
PKG_LIBS    = $(eval PKG_LIBS := $$(shell pkg-config --libs $(PACKAGES)))$(PKG_LIBS)
LDLIBS      = $(PKG_LIBS) -lnats -lpthread -lm

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla \
        -Wwrite-strings -Wformat=2 -Wno-format-nonliteral -Wundef
OPT_release := -O2 -g
OPT_debug   := -O0 -g3
OPT_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
OPT_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
OPT_cov     := -O0 -g --coverage
OPT_fuzz    := -O1 -g -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined
# No path, date or id of this machine gets into what is built: two builds of one commit are identical.
CFLAGS_ALL  = -std=gnu11 $(OPT_$(BUILD)) $(WARN) $(if $(WERROR),-Werror) -D_GNU_SOURCE -DCULE_VERSION='"$(VERSION)"' \
              -Ilib $(PKG_CFLAGS) -ffile-prefix-map=$(CURDIR)=. -fstack-protector-strong -MMD -MP $(CFLAGS)
LDFLAGS_ALL = $(OPT_$(BUILD)) -Wl,--as-needed -Wl,-z,relro,-z,now -Wl,--build-id=none $(LDFLAGS)

obj = $(patsubst %.c,$(O)/obj/%.o,$(1))
# A sub-make, in parallel unless this one is already.
SUBMAKE = +@$(MAKE) --no-print-directory $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(JOBS))

all: $(PROGRAMS:%=$(O)/bin/%) $(LIB)
lib: $(LIB)

# Objects are made anew when the compiler or its flags change.
$(O)/flags: have-deps
	$(shell mkdir -p $(@D))$(file >$@.new,$(CC) $(CFLAGS_ALL))
	@cmp -s $@.new $@ || cp $@.new $@; rm -f $@.new

$(O)/obj/%.o: %.c $(O)/flags
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c -o $@ $<

$(LIB): $(call obj,$(LIB_SRC))
	@rm -f $@
	ar rcsD $@ $^

define program
$(O)/bin/$(1): $(call obj,$(sort $(wildcard cmd/$(1)/*.c))) $(LIB)
	@mkdir -p $$(@D)
	$$(CC) $$(LDFLAGS_ALL) -o $$@ $$(filter %.o,$$^) $$(LIB) $$(LDLIBS)
endef
$(foreach p,$(PROGRAMS),$(eval $(call program,$(p))))

have-deps:
	@pkg-config --exists $(PACKAGES) 2>/dev/null || { \
	    echo "make: libraries to build with are missing; 'make deps' installs them: $(DEPS)" >&2; exit 1; }

# --- test programs ---------------------------------------------------------------------------------------
unit: $(patsubst tests/unit/%.c,$(O)/unit/%,$(UNIT_SRC))
$(O)/unit/%: $(O)/obj/tests/unit/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) -o $@ $< $(LIB) $(LDLIBS) -lcmocka

# Fuzz targets: under libFuzzer (BUILD=fuzz), and with a main that feeds them the committed corpus once.
fuzzers: $(patsubst tests/fuzz/%.c,$(O)/fuzzers/%,$(FUZZ_SRC))
$(O)/fuzzers/%: $(O)/obj/tests/fuzz/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) -fsanitize=fuzzer -o $@ $< $(LIB) $(LDLIBS)
corpus: $(patsubst tests/fuzz/%.c,$(O)/corpus/%,$(FUZZ_SRC))
$(O)/corpus/%: $(O)/obj/tests/fuzz/%.o $(O)/obj/tests/lib/corpus_main.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(LIB) $(LDLIBS)

# Programs that shell tests use; failalloc is a shared object for LD_PRELOAD.
TESTLIB := $(patsubst tests/lib/%.c,$(O)/testlib/%,$(filter-out %/failalloc.c %/corpus_main.c,$(TESTLIB_SRC)))
testlib: $(TESTLIB) $(O)/testlib/failalloc.so
$(O)/testlib/%: $(O)/obj/tests/lib/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) -o $@ $< $(LIB) $(LDLIBS)
$(O)/testlib/failalloc.so: tests/lib/failalloc.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 $(WARN) -D_GNU_SOURCE -shared -fPIC -o $@ $< -ldl

# Measures. One that includes a peer's header is built only where that header is, and linked with the peer.
PEER_HEADER := zmq.h nng/nng.h nats/nats.h
PEER_LIB     = $(foreach h,$(PEER_HEADER),$(if $(wildcard /usr/include/$(h)),-l$(basename $(notdir $(h)))))
peer_missing = $(foreach h,$(PEER_HEADER),$(if $(wildcard /usr/include/$(h)),,$(shell grep -l '^\#include <$(h)>' $(1))))
ifneq ($(filter bench-programs,$(MAKECMDGOALS)),)
BENCH_BUILT := $(foreach f,$(BENCH_SRC),$(if $(strip $(call peer_missing,$(f))),,$(f)))
endif
bench-programs: all $(patsubst tests/bench/%.c,$(O)/bench/%,$(BENCH_BUILT))
$(O)/bench/%: $(O)/obj/tests/bench/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) -o $@ $< $(LIB) $(LDLIBS) $(PEER_LIB) $(BENCH_LIBS_$*)

# --- running ---------------------------------------------------------------------------------------------
test-programs: all unit corpus testlib

test: deps deps-test
	$(SUBMAKE) test-programs
	@O=$(O) JOBS=$(JOBS) CC='$(CC)' BUILD=$(BUILD) tests/run.sh $(if $(T),'$(T)')

lint: deps deps-test
	$(SUBMAKE) all
	@O=$(O) JOBS=$(JOBS) CC='$(CC)' BUILD=$(BUILD) tests/run.sh --only lint $(if $(T),'$(T)')

bench: deps deps-bench
	$(SUBMAKE) bench-programs
	@O=$(O) tests/bench/run.sh $(T)

demo: deps
	$(SUBMAKE) all
	@PATH="$(abspath $(O))/bin:$$PATH" examples/demo.sh

completions: all
	@for p in $(PROGRAMS); do completions/generate $(O)/bin/$$p completions || exit 1; done

# --- packages --------------------------------------------------------------------------------------------
# Says nothing where nothing is missing. Looks for new package lists only when the known ones do not do.
define need
@command -v dpkg-query >/dev/null || { echo "make: no dpkg here; needed are the likes of: $(1)" >&2; exit 0; }; \
have=$$(dpkg-query -W -f '$${db:Status-Status} $${Package}\n' $(1) 2>/dev/null | sed -n 's/^installed //p'); \
missing=; for p in $(1); do \
    case " $$(echo $$have) " in *" $$p "*) ;; *) missing="$$missing $$p" ;; esac; done; \
[ -z "$$missing" ] && exit 0; \
if [ "$$(id -u)" != 0 ]; then \
    echo "make: packages are missing and you are not root; as root: apt-get install$$missing" >&2; exit 1; fi; \
echo "installing$$missing" >&2; log=$$(mktemp); \
get="env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3"; \
$$get install --no-install-recommends $$missing </dev/null >$$log 2>&1 || { $$get update && \
$$get install --no-install-recommends $$missing; } </dev/null >>$$log 2>&1 || { cat $$log >&2; rm -f $$log; \
    echo "make: cannot install$$missing" >&2; exit 1; }; rm -f $$log
endef
deps:
	$(call need,$(DEPS))
deps-test: deps
	$(call need,$(DEPS_TEST))
deps-bench: deps
	$(call need,$(DEPS_BENCH))

# --- installing ------------------------------------------------------------------------------------------
D        = $(DESTDIR)$(PREFIX)
HEADERS := $(sort $(wildcard lib/*/*.h lib/*/*.def lib/*/*/*.h lib/*/*/*.def))
MANPAGES:= $(sort $(wildcard man/man*/*.[1-9]))
SHARED  := $(sort $(wildcard lib/wire/*.magic))
COMPLETIONS := $(PROGRAMS:%=bash/%) $(PROGRAMS:%=zsh/_%) $(PROGRAMS:%=fish/%.fish)
to_share = $(patsubst bash/%,bash-completion/completions/%,$(patsubst zsh/%,zsh/site-functions/%,$(patsubst \
           fish/%,fish/vendor_completions.d/%,$(1))))
INSTALLED = $(PROGRAMS:%=bin/%) lib/libcule.a lib/pkgconfig/cule.pc $(HEADERS:lib/%=include/cule/%) \
            $(MANPAGES:%=share/%) $(addprefix share/,$(call to_share,$(COMPLETIONS))) \
            $(SHARED:lib/wire/%=share/cule/%)

define PC
prefix=$(PREFIX)
libdir=$${prefix}/lib
includedir=$${prefix}/include

Name: cule
Description: frames, links and endpoints of the Cule suite
Version: $(VERSION)
Requires: $(PACKAGES)
Libs: -L$${libdir} -lcule -lpthread -lm
Cflags: -I$${includedir}/cule
endef

put = install -D -m $(1) $(2) $(D)/$(3) &&
install: all
	@$(foreach p,$(PROGRAMS),$(call put,755,$(O)/bin/$(p),bin/$(p))) \
	$(call put,644,$(LIB),lib/libcule.a) \
	$(foreach h,$(HEADERS),$(call put,644,$(h),$(h:lib/%=include/cule/%))) \
	$(foreach m,$(MANPAGES),$(call put,644,$(m),share/$(m))) \
	$(foreach c,$(COMPLETIONS),$(call put,644,completions/$(c),share/$(call to_share,$(c)))) \
	$(foreach s,$(SHARED),$(call put,644,$(s),$(s:lib/wire/%=share/cule/%))) \
	install -d $(D)/lib/pkgconfig
	$(file >$(O)/cule.pc,$(PC))
	@install -m 644 $(O)/cule.pc $(D)/lib/pkgconfig/cule.pc

uninstall:
	@cd $(D) 2>/dev/null || exit 0; rm -f $(INSTALLED); \
	find include/cule share/cule -type d -empty -delete 2>/dev/null; true

# The archive of a commit depends on the commit alone.
dist:
	@mkdir -p $(O)
	git archive --format=tar --prefix=cule-$(VERSION)/ HEAD | gzip -9n >$(O)/cule-$(VERSION).tar.gz

clean:
	rm -rf build

-include $(shell find $(O)/obj -name '*.d' 2>/dev/null)
.PHONY: all lib have-deps unit fuzzers corpus testlib bench-programs test-programs test lint bench demo completions \
        deps deps-test deps-bench install uninstall dist clean
