# make          builds the module into build/
# make demo     builds and runs the tour in examples/, installing what is missing (Debian, root)
# make service  runs the service in examples/service against Redis and others; make service-load: under load
# make test     builds and runs all tests, installing what is missing (Debian, root)
# make bench    builds and runs the same work in Go, in the C core and in Lua, and shows one table
#               (ROUNDS=5; ONLY=pattern of rows; Debian, root: installs Go)
# make bench-picture  draws that table into doc/bench.svg
# make bench-stop  measures what stopping scripts costs
# make install  installs the module, and for C the headers, liblcontext and its pkg-config file (PREFIX, DESTDIR,
#               LUA_SHAREDIR, LUA_LIBDIR, LIBDIR, INCLUDEDIR)
# make check    what CI runs beside the tests: lint, tsan, asan, valgrind
# make stress   threads at random on one tree, for SECONDS (600); make faults: what fails, fails, with figures
# make fuzz     fuzzes the core and the binding, SECONDS (60) each
# make coverage which lines the tests reach

LUA        ?= lua5.4
GO         ?= go
LUA_INCDIR ?= /usr/include/lua5.4
PREFIX     ?= /usr/local
LUA_SHAREDIR ?= $(PREFIX)/share/lua/5.4
LUA_LIBDIR ?= $(PREFIX)/lib/lua/5.4
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
CFLAGS     ?= -O2 -g
WARNINGS   := -Wall -Wextra -Werror
export LUA LUA_INCDIR GO

, := ,
CORE    := $(wildcard csrc/core/*.c)
BIND    := $(wildcard csrc/bind/*.c)
HEADERS := $(wildcard csrc/*/*.h)
LUA_FILES := $(patsubst lua/%,%,$(wildcard lua/lcontext/*.lua))
MODULE  := build/lcontext/core.so

# Everything here runs with the tree's own Lua files and module, from whatever folder.
export LUA_PATH  := $(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;;
export LUA_CPATH := $(CURDIR)/build/?.so;;

all: $(MODULE)

$(MODULE): $(CORE) $(BIND) $(HEADERS)
	@tools/need.sh cc libc lua.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(WARNINGS) -fPIC -shared -I$(LUA_INCDIR) $(LDFLAGS) -o $@ $(CORE) $(BIND) -lm -lpthread

# For C programs without Lua: the core as a library, which shows what lcontext.h declares and nothing else.
VERSION := $(shell sed -n 's/^#define LCTX_VERSION "\(.*\)"/\1/p' csrc/core/lcontext.h)
SONAME  := liblcontext.so.$(basename $(VERSION))
LIBRARY := build/lib/liblcontext.a build/lib/$(SONAME)

build/lib/%.o: csrc/core/%.c $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(WARNINGS) -fPIC -fvisibility=hidden -DLCTX_SHARED -c -o $@ $<

build/lib/liblcontext.a: $(CORE:csrc/core/%.c=build/lib/%.o)
	$(AR) rcs $@ $^

build/lib/$(SONAME): $(CORE:csrc/core/%.c=build/lib/%.o)
	$(CC) -shared -Wl,-soname,$(SONAME) $(LDFLAGS) -o $@ $^ -lm -lpthread

build/lib/lcontext.pc: tools/lcontext.pc.in FORCE
	@mkdir -p $(@D)
	@sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@INCLUDEDIR@|$(INCLUDEDIR)|; s|@VERSION@|$(VERSION)|' $< >$@

# ---- Using it -------------------------------------------------------------------------------------------------

setup-demo:
	@tools/need.sh --install cc libc lua lua.h socket

demo: setup-demo
	@$(MAKE) --no-print-directory all
	@$(LUA) examples/tour.lua

setup-service:
	@tools/need.sh --install cc libc lua lua.h luv redis curl

service: setup-service
	@$(MAKE) --no-print-directory all
	@$(LUA) examples/service/exercise.lua

service-load: setup-service
	@tools/need.sh --install wrk
	@$(MAKE) --no-print-directory all
	@$(LUA) examples/service/load.lua

bench-stop: all
	@$(LUA) bench/stop.lua

ROUNDS ?= 5
ONLY   ?=
BENCH  := build/bench

# Without a Go its column stays empty.
setup-bench:
	@tools/need.sh --install cc libc lua lua.h
	@tools/need.sh --install go || echo "without Go there is nothing to compare with; going on all the same" >&2

bench: setup-bench
	@$(MAKE) --no-print-directory all $(BENCH)/core $(BENCH)/go
	@$(LUA) bench/run.lua --rounds $(ROUNDS) $(if $(ONLY),--only '$(ONLY)',--tsv $(BENCH)/bench.tsv) $(BENCH)

$(BENCH)/core: bench/core.c $(CORE) $(HEADERS)
	@mkdir -p $(@D)
	$(CC) -O2 $(WARNINGS) -Icsrc/core -o $@ bench/core.c $(CORE) -lpthread -lm

$(BENCH)/go: $(wildcard bench/go/*)
	@mkdir -p $(@D)
	@rm -f $@
	if command -v $(GO) >/dev/null; then cd bench/go && \
	  GO111MODULE=on GOTOOLCHAIN=local GOWORK=off $(GO) build -buildvcs=false -o $(CURDIR)/$@ .; fi

$(BENCH)/bench.tsv:
	@$(MAKE) --no-print-directory bench

bench-picture: $(BENCH)/bench.tsv
	$(LUA) bench/picture.lua $< doc/bench.svg

install: all $(LIBRARY) build/lib/lcontext.pc
	install -d $(DESTDIR)$(LUA_SHAREDIR)/lcontext $(DESTDIR)$(LUA_LIBDIR)/lcontext
	install -m 644 $(addprefix lua/,$(LUA_FILES)) $(DESTDIR)$(LUA_SHAREDIR)/lcontext
	install -m 755 $(MODULE) $(DESTDIR)$(LUA_LIBDIR)/lcontext
	install -d $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 644 csrc/core/lcontext.h csrc/bind/lcontext_lua.h $(DESTDIR)$(INCLUDEDIR)
	install -m 644 build/lib/liblcontext.a $(DESTDIR)$(LIBDIR)
	install -m 755 build/lib/$(SONAME) $(DESTDIR)$(LIBDIR)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/liblcontext.so
	install -m 644 build/lib/lcontext.pc $(DESTDIR)$(LIBDIR)/pkgconfig

# ---- Testing it -----------------------------------------------------------------------------------------------

FAULT_TESTS := $(patsubst spec/fault/%.c,%,$(wildcard spec/fault/*_test.c))
TESTS := $(patsubst spec/core/%.c,%,$(wildcard spec/core/*_test.c)) $(FAULT_TESTS)
HOST_TESTS := $(patsubst spec/host/%.c,%,$(wildcard spec/host/*_test.c))

setup-test:
	@tools/need.sh --install cc libc lua lua.h socket luv cqueues busted redis curl pkg-config

test: setup-test
	@$(MAKE) --no-print-directory all build/plain build/host build/replay build/c
	@tools/test.sh build/plain build/host build/replay

# The C tests of the core in one folder for each way to compile them. A test names what else it needs to be
# linked with in a line "// link: ...".
build/plain:  CHECK_FLAGS := -O2 -g
build/tsan:   CHECK_FLAGS := -O1 -g -fsanitize=thread
build/asan:   CHECK_FLAGS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all

build/plain build/tsan build/asan build/coverage: FORCE
	@mkdir -p $@
	@$(MAKE) --no-print-directory CHECK_FLAGS="$(CHECK_FLAGS)" $(addprefix $@/,$(TESTS))

# An installation of its own for the tests, and the C examples built with what it gives.
STAGE := $(CURDIR)/build/stage
C_EXAMPLES := build/c/search build/c/search-static build/c/host build/c/checksum.so
STAGED := PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig pkg-config

build/c: $(C_EXAMPLES)

build/stage/include/lcontext.h: $(CORE) $(BIND) $(HEADERS) $(wildcard lua/lcontext/*.lua) tools/lcontext.pc.in
	@$(MAKE) --no-print-directory install PREFIX=$(STAGE) >/dev/null

build/c/search: examples/c/search.c build/stage/include/lcontext.h
	@mkdir -p $(@D)
	$(CC) -O2 $(WARNINGS) $< $$($(STAGED) --cflags --libs lcontext) -Wl,-rpath,$(STAGE)/lib -lpthread -o $@

build/c/search-static: examples/c/search.c build/stage/include/lcontext.h
	@mkdir -p $(@D)
	$(CC) -O2 $(WARNINGS) $< $$($(STAGED) --cflags lcontext) $(STAGE)/lib/liblcontext.a -lm -lpthread -o $@

build/c/host: examples/c/host.c build/stage/include/lcontext.h
	@mkdir -p $(@D)
	$(CC) -O2 $(WARNINGS) -I$(LUA_INCDIR) $$($(STAGED) --cflags lcontext) $< -llua5.4 -o $@

build/c/checksum.so: examples/c/checksum.c build/stage/include/lcontext.h
	@mkdir -p $(@D)
	$(CC) -O2 $(WARNINGS) -I$(LUA_INCDIR) $$($(STAGED) --cflags lcontext) -shared -fPIC $< -o $@

# Tests in C hosts, which load the module as any host does.
build/host: $(addprefix build/host/,$(HOST_TESTS))

build/host/%_test: spec/host/%_test.c spec/host/host.h
	@mkdir -p $(@D)
	$(CC) -O2 -g $(WARNINGS) -I$(LUA_INCDIR) -o $@ $< -llua5.4 -lpthread

# script_memory_test needs the binding, too.
define test_rule
build/$(1)/%.o: csrc/%.c $$(HEADERS)
	@mkdir -p $$(@D)
	$$(CC) $$(CHECK_FLAGS) $$(WARNINGS) -fPIC -I$$(LUA_INCDIR) -c -o $$@ $$<

build/$(1)/%_test: spec/core/%_test.c $(wildcard spec/core/*.h) $(CORE:csrc/%.c=build/$(1)/%.o)
	$$(TEST_BUILD)

build/$(1)/%_test: spec/fault/%_test.c $(wildcard spec/core/*.h spec/fault/*.h) $(CORE:csrc/%.c=build/$(1)/%.o)
	$$(TEST_BUILD)

build/$(1)/script_memory_test: $(BIND:csrc/%.c=build/$(1)/%.o)
endef
TEST_BUILD = $(CC) $(CHECK_FLAGS) $(WARNINGS) -I$(LUA_INCDIR) -o $@ $< $(filter %.o,$^) \
  $$(sed -n 's|^// link: ||p' $<) -lm -lpthread
$(foreach kind,plain tsan asan coverage,$(eval $(call test_rule,$(kind))))

# ---- Trying to break it ----------------------------------------------------------------------------------------

stress: setup-test
	@$(MAKE) --no-print-directory build/plain
	SECONDS=$(or $(SECONDS),600) build/plain/stress_test

# Memory, threads, descriptors, clocks and forks that fail or come at the wrong moment.
faults: setup-test
	@$(MAKE) --no-print-directory build/plain
	@failed=0; for test in memory_test fork_test $(filter-out stress_test,$(FAULT_TESTS)); do \
	  echo "== $$test"; build/plain/$$test || failed=1; \
	done; exit $$failed

# The fuzz targets. What one is compiled and linked with beside the core stands in its lines "// compile: ..." and
# "// link: ...". The corpora in spec/fuzz/corpus are also replayed by `make test`, without clang.
FUZZERS := $(patsubst spec/fuzz/%_fuzz.c,%,$(wildcard spec/fuzz/*_fuzz.c))
FUZZ_FILES := $(wildcard spec/fuzz/*.h spec/fuzz/replay.c spec/core/*.h spec/fault/*.h) $(CORE) $(BIND) $(HEADERS)

define fuzz_build
@mkdir -p $(@D)
$(1) $(WARNINGS) $$(sed -n 's|^// compile: ||p' $<) -I$(LUA_INCDIR) -o $@ $< $(2) $(CORE) \
  $$(sed -n 's|^// link: ||p' $<) -lm -lpthread
endef

build/fuzz/%_fuzz: spec/fuzz/%_fuzz.c $(FUZZ_FILES)
	$(call fuzz_build,clang -g -O1 -fsanitize=fuzzer$(,)address$(,)undefined -fno-sanitize-recover=all)

build/replay/%_replay_test: spec/fuzz/%_fuzz.c $(FUZZ_FILES)
	$(call fuzz_build,$(CC) -g -O1 -DCORPUS='"spec/fuzz/corpus/$*"',spec/fuzz/replay.c)

build/replay: $(FUZZERS:%=build/replay/%_replay_test)

setup-fuzz: setup-test
	@tools/need.sh --install clang
	@tools/need.sh --install fuzzer # which package that is depends on the clang

# The targets count what they leave, more sharply than the leak checker, which would also see what Lua itself loses.
# What is new in a run is kept in build/fuzz/corpus; what breaks something, in build/fuzz.
FUZZ_OPTIONS := -max_len=800 -len_control=10 -timeout=120 -detect_leaks=0 -verbosity=0 -print_final_stats=1
fuzz: setup-fuzz
	@$(MAKE) --no-print-directory $(FUZZERS:%=build/fuzz/%_fuzz)
	@for name in $(FUZZERS); do \
	  echo "== $$name"; \
	  mkdir -p build/fuzz/corpus/$$name; \
	  ASAN_OPTIONS=detect_leaks=0 build/fuzz/$${name}_fuzz -max_total_time=$(or $(SECONDS),60) $(FUZZ_OPTIONS) \
	    -artifact_prefix=build/fuzz/ build/fuzz/corpus/$$name spec/fuzz/corpus/$$name || exit 1; \
	done

# ---- Lines that the tests reach ---------------------------------------------------------------------------------

COVERAGE := -O0 -g --coverage -fprofile-update=atomic -D_exit=exit
build/coverage build/coverage/lcontext/core.so: CHECK_FLAGS := $(COVERAGE)

build/coverage/lcontext/core.so: $(patsubst csrc/%.c,build/coverage/%.o,$(CORE) $(BIND))
	@mkdir -p $(@D)
	$(CC) --coverage -shared -o $@ $^ -lm -lpthread

# A process that ends by _exit would not write down what it has reached: hence the -D. LCONTEXT_SLOW: see valgrind.
coverage: setup-test
	@rm -rf build/coverage
	@$(MAKE) --no-print-directory build/coverage build/coverage/lcontext/core.so build/host
	@LCONTEXT_SLOW=1 LUA_CPATH="$(CURDIR)/build/coverage/?.so;;" tools/test.sh build/coverage build/host \
	  >build/coverage/log || echo "some tests failed: see build/coverage/log"
	@LCONTEXT_SLOW=1 LUA_CPATH="$(CURDIR)/build/coverage/?.so;;" LINES_REACHED=$(CURDIR)/build/coverage/lua \
	  LUA_INIT="@tools/lines.lua" $(LUA) tools/busted.lua spec/loop_spec.lua >build/coverage/lua.log || \
	  echo "some specs failed: see build/coverage/lua.log"
	@$(LUA) tools/coverage.lua build/coverage

# ---- Checking it: what CI runs beside the tests ----------------------------------------------------------------

check: lint tsan asan valgrind

setup-check: setup-test
	@tools/need.sh --install clang valgrind luacheck luarocks git

# Every source under both compilers, with all warnings and with the flags of LuaRocks' builtin build only.
lint: setup-check
	for cc in gcc clang; do \
	  for flags in "-O2 $(WARNINGS)" "-O2 -fPIC"; do \
	    for source in $(CORE) $(BIND) $(wildcard spec/*/*.c) bench/core.c; do \
	      $$cc $$flags -I$(LUA_INCDIR) -Icsrc/core -fsyntax-only $$source || exit 1; \
	    done; \
	  done; \
	done
	luacheck --quiet lua spec examples tools bench

tsan: setup-check
	@$(MAKE) --no-print-directory build/tsan
	@SPECS=no tools/test.sh build/tsan

asan: setup-check
	@$(MAKE) --no-print-directory build/asan
	@SPECS=no tools/test.sh build/asan

# The specs under valgrind. LCONTEXT_SLOW tells them that time runs slower here.
valgrind: setup-check
	@$(MAKE) --no-print-directory all
	LCONTEXT_SLOW=1 valgrind --quiet --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
	  --error-exitcode=9 --suppressions=tools/valgrind.supp $(LUA) tools/busted.lua spec

# Installs the rock into a tree of its own, and uses it from another folder.
ROCK_TREE := $(CURDIR)/build/rock
rock: setup-check
	rm -rf $(ROCK_TREE) && mkdir -p build/rock-source
	git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t build/rock-source
	cd build/rock-source && luarocks --lua-version 5.4 --tree $(ROCK_TREE) make rockspec/*.rockspec
	cd / && LUA_PATH="$(ROCK_TREE)/share/lua/5.4/?.lua;$(ROCK_TREE)/share/lua/5.4/?/init.lua" \
	  LUA_CPATH="$(ROCK_TREE)/lib/lua/5.4/?.so" $(LUA) -e \
	  'local context = require "lcontext"; require "lcontext.loop"; print(context._VERSION, context.background())'

FORCE:
.SECONDARY:
.PHONY: all demo service service-load bench bench-picture bench-stop install test build/c build/host build/replay
.PHONY: stress faults fuzz coverage check lint tsan asan valgrind rock FORCE
.PHONY: setup-demo setup-service setup-bench setup-test setup-check setup-fuzz
