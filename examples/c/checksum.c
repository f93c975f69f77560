/* A C module for Lua that takes a context: the CRC-32 of a file, computed in slices, given up when the context ends.
 * It is built against the headers alone, without linking lcontext.
 *
 *     cc -shared -fPIC checksum.c -I/usr/include/lua5.4 -I(where lcontext_lua.h is) -o checksum.so
 *
 *     local checksum = require "checksum"
 *     local crc, err = checksum.crc32(ctx, "/var/log/big")       -- nil, err: of the file, or ctx:err()
 */
#include <lcontext_lua.h>

#include <lauxlib.h>
#include <lua.h>
#include <stdint.h>
#include <stdio.h>

enum { SLICE = 1 << 16 };

static uint32_t table[256];

static void make_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xEDB88320u : 0);
    }
}

static uint32_t add_slice(uint32_t crc, const unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 0xFF];
    return crc;
}

/* Whether the whole file was read: not if the context has ended, or the file cannot be read. */
static bool read_all(const lctx_lua *lc, lctx *ctx, FILE *file, uint32_t *crc)
{
    static _Thread_local unsigned char slice[SLICE];
    size_t count;
    *crc = ~0u;
    while ((count = fread(slice, 1, SLICE, file)) > 0) {
        *crc = add_slice(*crc, slice, count);
        if (lc->err(ctx) != LCTX_LIVE)
            return false;
    }
    *crc = ~*crc;
    return !ferror(file);
}

/* crc32(ctx, path) -> the checksum; nil, err */
static int crc32(lua_State *L)
{
    const lctx_lua *lc = lctx_lua_open(L);
    lctx *ctx = lc->check(L, 1); /* lives as long as the argument does */
    const char *path = luaL_checkstring(L, 2);
    uint32_t crc;
    if (lc->err(ctx) != LCTX_LIVE) {
        lua_pushnil(L);
        lc->push_err(L, ctx);
        return 2;
    }
    FILE *file = fopen(path, "rb");
    bool whole = file && read_all(lc, ctx, file, &crc);
    if (whole) {
        fclose(file);
        lua_pushinteger(L, crc);
        return 1;
    }
    int result = luaL_fileresult(L, 0, path); /* before anything changes errno */
    if (file)
        fclose(file);
    if (lc->err(ctx) == LCTX_LIVE)
        return result;
    lua_pushnil(L);
    lc->push_err(L, ctx);
    return 2;
}

static const luaL_Reg functions[] = {{"crc32", crc32}, {NULL, NULL}};

int luaopen_checksum(lua_State *L)
{
    lctx_lua_open(L); /* fails here, if it does */
    make_table();
    luaL_newlib(L, functions);
    return 1;
}
