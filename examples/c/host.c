/* A host that embeds Lua, gives each request a context with a deadline, and stops the script with it.
 *
 * It does not link lcontext: the functions are found in the module that the scripts have loaded.
 *
 *     cc host.c -I/usr/include/lua5.4 -I(where lcontext_lua.h is) -llua5.4 -o host
 *     ./host script.lua          (script.lua returns a function handle(ctx, request))
 */
#include <lcontext_lua.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>

typedef struct request {
    const char *id, *text;
} request;

/* The context of a request: a reference of ours. */
static lctx *context_of(const lctx_lua *lc, const request *request, double seconds)
{
    const lctx_any id = {.type = LCTX_STRING, .as.string = request->id, .of.length = 3};
    lctx *timed = lc->with_timeout(lc->background(), seconds, NULL);
    lctx *ctx = timed ? lc->with_named_value(timed, "request id", id) : NULL;
    lc->unref(timed); /* ctx holds it */
    return ctx;
}

/* ctx:pcall(handle, ctx, text), with handle at index 2. Prints what it gives. */
static void handle(lua_State *L, const lctx_lua *lc, const request *request, double seconds)
{
    lctx *ctx = context_of(lc, request, seconds);
    lc->push(L, ctx);
    lc->unref(ctx); /* Lua holds it now; after the request the collector ends it, if nothing has before */
    int index = lua_gettop(L);
    lua_getfield(L, index, "pcall");
    lua_pushvalue(L, index);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, index);
    lua_pushstring(L, request->text);
    lua_call(L, 4, 2);
    const char *result = lua_toboolean(L, -2) ? "answer" : "failed";
    printf("%s: %s: %s\n", request->id, result, luaL_tolstring(L, -1, NULL));
    lua_settop(L, 2);
}

static int serve(lua_State *L)
{
    static const request requests[] = {{"r-1", "quick"}, {"r-2", "endless"}, {"r-3", "quick again"}};
    const lctx_lua *lc = lctx_lua_open(L);
    if (luaL_loadfile(L, lua_tostring(L, 1)) != LUA_OK)
        return lua_error(L);
    lua_call(L, 0, 1);
    for (int i = 0; i < 3; i++)
        handle(L, lc, &requests[i], 0.1);
    return 0;
}

int main(int argc, char **argv)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    lua_pushcfunction(L, serve);
    lua_pushstring(L, argc > 1 ? argv[1] : "script.lua");
    int status = lua_pcall(L, 1, 0, 0);
    if (status != LUA_OK)
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
    lua_close(L);
    return status != LUA_OK;
}
