# make          builds the module into build/
# make demo     builds and runs the tour in examples/, installing what is missing (Debian, root)
# make service  runs the service in examples/service against Redis and others; make service-load: under load
# make test     builds and runs all tests, installing what is missing (Debian, root)
# make bench-stop  measures what stopping scripts costs
# make install  installs the module (PREFIX, DESTDIR, LUA_SHAREDIR, LUA_LIBDIR)
# make check    what CI runs beside the tests: lint, tsan, asan, valgrind

LUA        ?= lua5.4
LUA_INCDIR ?= /usr/include/lua5.4
PREFIX     ?= /usr/local
LUA_SHAREDIR ?= $(PREFIX)/share/lua/5.4
LUA_LIBDIR ?= $(PREFIX)/lib/lua/5.4
CFLAGS     ?= -O2 -g
WARNINGS   := -Wall -Wextra -Werror
export LUA LUA_INCDIR

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
	$(CC) $(CFLAGS) $(WARNINGS) -fPIC -shared -I$(LUA_INCDIR) $(LDFLAGS) -o $@ $(CORE) $(BIND) -lpthread

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

install: all
	install -d $(DESTDIR)$(LUA_SHAREDIR)/lcontext $(DESTDIR)$(LUA_LIBDIR)/lcontext
	install -m 644 $(addprefix lua/,$(LUA_FILES)) $(DESTDIR)$(LUA_SHAREDIR)/lcontext
	install -m 755 $(MODULE) $(DESTDIR)$(LUA_LIBDIR)/lcontext

# ---- Testing it -----------------------------------------------------------------------------------------------

TESTS := $(patsubst spec/core/%.c,%,$(wildcard spec/core/*_test.c))
HOST_TESTS := $(patsubst spec/host/%.c,%,$(wildcard spec/host/*_test.c))

setup-test:
	@tools/need.sh --install cc libc lua lua.h socket luv cqueues busted redis curl

test: setup-test
	@$(MAKE) --no-print-directory all build/plain build/host
	@tools/test.sh build/plain build/host

# The C tests of the core in one folder for each way to compile them. A test names what else it needs to be
# linked with in a line "// link: ...".
build/plain:  CHECK_FLAGS := -O2 -g
build/tsan:   CHECK_FLAGS := -O1 -g -fsanitize=thread
build/asan:   CHECK_FLAGS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all

build/plain build/tsan build/asan: FORCE
	@mkdir -p $@
	@$(MAKE) --no-print-directory CHECK_FLAGS="$(CHECK_FLAGS)" $(addprefix $@/,$(TESTS))

# Tests in C hosts, which load the module as any host does.
build/host: $(addprefix build/host/,$(HOST_TESTS))

build/host/%_test: spec/host/%_test.c spec/host/host.h
	@mkdir -p $(@D)
	$(CC) -O2 -g $(WARNINGS) -I$(LUA_INCDIR) -o $@ $< -llua5.4 -lpthread

define test_rule
build/$(1)/%_test: spec/core/%_test.c $(wildcard spec/core/*.h) $$(CORE) $$(HEADERS)
	$$(CC) $$(CHECK_FLAGS) $$(WARNINGS) -o $$@ $$< $$(CORE) $$$$(sed -n 's|^// link: ||p' $$<) -lpthread
endef
$(foreach kind,plain tsan asan,$(eval $(call test_rule,$(kind))))

# ---- Checking it: what CI runs beside the tests ----------------------------------------------------------------

check: lint tsan asan valgrind

setup-check: setup-test
	@tools/need.sh --install clang valgrind luacheck luarocks git

# Every source under both compilers, with all warnings and with the flags of LuaRocks' builtin build only.
lint: setup-check
	for cc in gcc clang; do \
	  for flags in "-O2 $(WARNINGS)" "-O2 -fPIC"; do \
	    for source in $(CORE) $(BIND) $(wildcard spec/core/*.c spec/host/*.c); do \
	      $$cc $$flags -I$(LUA_INCDIR) -fsyntax-only $$source || exit 1; \
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
	LCONTEXT_SLOW=1 valgrind --quiet --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --error-exitcode=9 \
	  --suppressions=tools/valgrind.supp $(LUA) tools/busted.lua spec

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
.PHONY: build/host all demo service service-load bench-stop install test check lint tsan asan valgrind rock setup-demo setup-service setup-test setup-check FORCE
