#!/bin/sh
# need.sh [--install] THING...: checks that what a make target uses is there. With --install, what is missing
# is installed from the distribution's packages, on Debian and as root; else, and elsewhere, it is named.
# A THING is a key of the table below.
set -u
install=no
if [ "${1:-}" = --install ]; then install=yes; shift; fi
lua=${LUA:-lua5.4}

has_lua_module() { command -v "$lua" >/dev/null && "$lua" -e "require '$1'" >/dev/null 2>&1; }

clang_major() { clang -dumpversion 2>/dev/null | cut -d. -f1; }

# The name of the package differs from one Debian to the next, so what counts is whether it works.
has_fuzzer() {
  probe=$(mktemp)
  echo 'int LLVMFuzzerTestOneInput(const char *data, unsigned long size) { return 0 * size * !data; }' |
    clang -x c -fsanitize=fuzzer,address,undefined -o "$probe" - >/dev/null 2>&1
  status=$?
  rm -f "$probe"
  return $status
}

# thing -> how to see that it is there, and the Debian package that has it
check() {
  case $1 in
    cc)       package=gcc;           command -v cc >/dev/null && printf '#include <stdio.h>\n' | cc -E - >/dev/null 2>&1 ;;
    libc)     package=libc6-dev;     printf '#include <stdio.h>\n' | cc -E - >/dev/null 2>&1 ;;
    lua)      package=lua5.4;        command -v "$lua" >/dev/null ;;
    lua.h)    package=liblua5.4-dev; [ -f "${LUA_INCDIR:-/usr/include/lua5.4}/lua.h" ] ;;
    socket)   package=lua-socket;    has_lua_module socket ;;
    luv)      package=lua-luv;       has_lua_module luv ;;
    cqueues)  package=lua-cqueues;   has_lua_module cqueues ;;
    busted)   package=lua-busted;    has_lua_module busted.runner ;;
    redis)    package="redis-server redis-tools"; command -v redis-server >/dev/null && command -v redis-cli >/dev/null ;;
    pkg-config) package=pkg-config;  command -v pkg-config >/dev/null ;;
    curl)     package=curl;          command -v curl >/dev/null ;;
    wrk)      package=wrk;           command -v wrk >/dev/null ;;
    luacheck) package=lua-check;     command -v luacheck >/dev/null ;;
    luarocks) package=luarocks;      command -v luarocks >/dev/null ;;
    clang)    package=clang;         command -v clang >/dev/null ;;
    fuzzer)   package=libclang-rt-$(clang_major)-dev; has_fuzzer ;;
    valgrind) package="valgrind libc6-dbg"; command -v valgrind >/dev/null && valgrind -q true 2>/dev/null ;;
    go)       package=golang-go;     command -v "${GO:-go}" >/dev/null ;;
    git)      package=git;           command -v git >/dev/null ;;
    *)        echo "need.sh: unknown thing $1" >&2; exit 2 ;;
  esac
}

missing=
for thing; do check "$thing" || missing="$missing $package"; done
[ -n "$missing" ] || exit 0

if [ $install = yes ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "installing:$missing"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null || exit 1
  for thing; do check "$thing" || { echo "still missing after the installation: $thing" >&2; exit 1; }; done
  exit 0
fi
echo "missing (Debian's names):$missing" >&2
if command -v apt-get >/dev/null; then
  echo "install with: apt-get install$missing" >&2
else
  echo "please install what your system calls these, and set LUA and LUA_INCDIR if Lua 5.4 lies elsewhere" >&2
fi
exit 1
