# Cule: eight small programs over one static library. One makefile for all of it; programs are found in cmd/*.
#
#   make            build/bin/*                      make test     everything a stranger should see pass
#   make demo       the main job on real input       make lint     layers, sizes, style, shell, man pages
#   make bench      ratios against named peers       make install  PREFIX=/usr/local DESTDIR=
#
# BUILD=release|debug|asan|tsan|cov|fuzz builds beside the release build, in build/$(BUILD).

VERSION := 0.1.0
BUILD   ?= release
CC      ?= cc
ifeq ($(origin CC),default)
CC := gcc
endif
PREFIX  ?= /usr/local
O       := $(if $(filter release,$(BUILD)),build,build/$(BUILD))

.DEFAULT_GOAL := all
.SUFFIXES:
.DELETE_ON_ERROR:

# --- what to build ---------------------------------------------------------------------------------------
LIB_SRC  := $(sort $(wildcard lib/*/*.c lib/*/*/*.c))
PROGRAMS := $(sort $(notdir $(patsubst %/,%,$(wildcard cmd/*/))))
UNIT_SRC := $(sort $(wildcard tests/unit/*.c))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/*.c))
BENCH_SRC := $(sort $(wildcard tests/bench/*.c))
LIB      := $(O)/libcule.a

# --- with what -------------------------------------------------------------------------------------------
PACKAGES := libuv sqlite3 libsodium gnutls
PKG_CFLAGS := $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
LDLIBS   := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null) -lnats -lpthread -lm

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla \
        -Wwrite-strings -Wformat=2 -Wno-format-nonliteral -Wundef
OPT_release := -O2 -g
OPT_debug   := -O0 -g3
OPT_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
OPT_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
OPT_cov     := -O0 -g --coverage
OPT_fuzz    := -O1 -g -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined
ifeq ($(BUILD),fuzz)
CC := clang
endif
CFLAGS_ALL  = -std=gnu11 $(OPT_$(BUILD)) $(WARN) $(if $(WERROR),-Werror) -D_GNU_SOURCE -DCULE_VERSION='"$(VERSION)"' \
              -Ilib $(PKG_CFLAGS) -ffile-prefix-map=$(CURDIR)=. -fstack-protector-strong -MMD -MP $(CFLAGS)
LDFLAGS_ALL = $(OPT_$(BUILD)) -Wl,--as-needed -Wl,-z,relro,-z,now -Wl,--build-id=none $(LDFLAGS)

obj = $(patsubst %.c,$(O)/obj/%.o,$(1))

all: $(PROGRAMS:%=$(O)/bin/%)
lib: $(LIB)

$(O)/obj/%.o: %.c
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

# --- tests -----------------------------------------------------------------------------------------------
UNIT := $(patsubst tests/unit/%.c,$(O)/unit/%,$(UNIT_SRC))
unit: $(UNIT)
$(O)/unit/%: $(O)/obj/tests/unit/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) -o $@ $< $(LIB) $(LDLIBS) -lcmocka

FUZZ := $(patsubst tests/fuzz/%.c,$(O)/fuzzers/%,$(FUZZ_SRC))
fuzzers: $(FUZZ)
$(O)/fuzzers/%: $(O)/obj/tests/fuzz/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) -fsanitize=fuzzer -o $@ $< $(LIB) $(LDLIBS)

clean:
	rm -rf build

-include $(shell find $(O)/obj -name '*.d' 2>/dev/null)
.PHONY: all lib unit fuzzers clean
.SECONDARY:
