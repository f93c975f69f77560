/* SPDX-License-Identifier: MIT
 *
 * lcontext_lua.h, all of it: contexts that go from C to Lua and back. Only the headers are used.
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "../../csrc/core/lcontext.h"

#include "../../csrc/bind/lcontext_lua.h"
#include "host.h"

static bool is_string(const lctx_any *any, const char *text)
{
    return any->type == LCTX_STRING && any->of.length == strlen(text) &&
           memcmp(any->as.string, text, strlen(text)) == 0;
}

static lctx_any string_of(const char *text)
{
    return (lctx_any){.type = LCTX_STRING, .as.string = text, .of.length = strlen(text)};
}

static int the_table_is_complete(void)
{
    lua_State *L = new_state();
    const lctx_lua *lc = lctx_lua_open(L);
    bool passed = lc->version == LCTX_LUA_VERSION && lc->size == sizeof *lc && strcmp(lc->release, LCTX_VERSION) == 0;
    void (*const *members)(void) = (void (*const *)(void)) & lc->check;
    size_t count = (sizeof *lc - offsetof(lctx_lua, check)) / sizeof *members;
    for (size_t i = 0; i < count; i++)
        passed = passed && members[i] != NULL;
    passed = passed && lctx_lua_open(L) == lc && lua_gettop(L) == 0;
    lua_close(L);
    return passed;
}

static int open_a_wrong_version(lua_State *L)
{
    lctx_lua_open(L);
    return 0;
}

static int another_version_is_refused(void)
{
    lua_State *L = new_state();
    lctx_lua wrong = *lctx_lua_open(L);
    wrong.version++;
    wrong.release = "9.9.9";
    lua_pushlightuserdata(L, &wrong);
    lua_setfield(L, LUA_REGISTRYINDEX, LCTX_LUA_KEY);
    lua_pushcfunction(L, open_a_wrong_version);
    bool passed = lua_pcall(L, 0, 0, 0) != LUA_OK && strstr(lua_tostring(L, -1), "lcontext 9.9.9 is loaded");
    lua_close(L);
    return passed;
}

static int what_c_pushes_lua_has(void)
{
    lua_State *L = new_state();
    const lctx_lua *lc = lctx_lua_open(L);
    static const char key;
    lctx *timed = lc->with_timeout(lc->background(), 100, NULL);
    lctx *named = lc->with_named_value(timed, "user", string_of("alice"));
    lctx *keyed = lc->with_value(named, &key, (lctx_any){.type = LCTX_INTEGER, .as.integer = 7});
    lctx_stats stats;
    lc->push(L, keyed);
    lua_setglobal(L, "ctx");
    lc->push(L, keyed);
    lua_setglobal(L, "again");
    lc->push_cancel(L, timed);
    lua_setglobal(L, "cancel");
    lc->push(L, NULL);
    lua_setglobal(L, "none");
    lua_pushlightuserdata(L, (void *)&key);
    lua_setglobal(L, "key");
    lc->push(L, lc->background());
    lua_setglobal(L, "root");
    bool passed = passes(L,
                         "local context = require 'lcontext'\n"
                         "assert(ctx == again and none == nil and root == context.background())\n"
                         "assert(ctx:value('user') == 'alice' and ctx:value(key) == 7)\n"
                         "assert(ctx:remaining() > 0 and ctx:remaining() <= 100 and ctx:err() == nil)\n"
                         "child = ctx:with_cancel()\n"
                         "child:after_func(function() ran = true end)\n"
                         "cancel('why')\n"
                         "return ran and ctx:cause() == 'why' and child:err() == context.Canceled\n",
                         0);
    lctx_any cause;
    passed = passed && lc->err(keyed) == LCTX_CANCELED && lc->cause(keyed, &cause) && is_string(&cause, "why");
    lc->unref(keyed);
    lc->unref(named);
    lc->unref(timed);
    lua_close(L);
    L = new_state();
    lctx_lua_open(L)->get_stats(&stats);
    lua_close(L);
    return passed && stats.contexts == 0;
}

static int what_lua_passes_c_reads(void)
{
    lua_State *L = new_state();
    const lctx_lua *lc = lctx_lua_open(L);
    char text[32];
    lctx_any any;
    bool passed =
        passes(L,
               "local context = require 'lcontext'\n"
               "local why = setmetatable({}, { __tostring = function() return 'an object' end })\n"
               "why_not = why\n"
               "ctx, cancel = context.background():with_values{ s = 'x', n = 1.5, b = true, t = {} }:with_timeout(50)\n"
               "return true\n",
               0);
    lua_getglobal(L, "ctx");
    lctx *ctx = lc->check(L, -1);
    passed = passed && ctx == lc->test(L, -1) && lc->named_value(ctx, "s", &any) && is_string(&any, "x") &&
             lc->named_value(ctx, "n", &any) && any.type == LCTX_NUMBER && any.as.number == 1.5 &&
             lc->named_value(ctx, "b", &any) && any.type == LCTX_BOOLEAN && any.as.boolean &&
             lc->named_value(ctx, "t", &any) && any.type == LCTX_OBJECT && !lc->named_value(ctx, "no", &any) &&
             !lc->named_value(ctx, "a name that nobody has used", &any) && lc->remaining(ctx) > 0;
    lc->push_err(L, ctx);
    passed = passed && lua_isnil(L, -1) && lc->cause_text(ctx, text, sizeof text) == 0;
    lc->push(L, ctx); /* from now on, causes say how they print */
    passed = passed && passes(L, "cancel(why_not) return true", 0) && lc->cause(ctx, &any) && any.type == LCTX_OBJECT &&
             lc->cause_text(ctx, text, sizeof text) == strlen("an object") && strcmp(text, "an object") == 0 &&
             lc->cause_text(ctx, text, 4) == strlen("an object") && strcmp(text, "an ") == 0;
    lc->push_err(L, ctx);
    lua_setglobal(L, "err");
    passed = passed && passes(L, "return err == require('lcontext').Canceled", 0);
    lua_pushinteger(L, 5);
    passed = passed && lc->test(L, -1) == NULL && lc->test(L, 100) == NULL;
    lua_close(L);
    return passed;
}

static int causes_print_as_lua_prints_them(void)
{
    static const struct {
        lctx_any cause;
        const char *text;
    } cases[] = {{{.type = LCTX_NIL}, "context canceled"},
                 {{.type = LCTX_BOOLEAN}, "false"},
                 {{.type = LCTX_INTEGER, .as.integer = -3}, "-3"},
                 {{.type = LCTX_NUMBER, .as.number = 1.5}, "1.5"},
                 {{.type = LCTX_NUMBER, .as.number = 2}, "2.0"},
                 {{.type = LCTX_NUMBER, .as.number = 1e100}, "1e+100"},
                 {{.type = LCTX_NUMBER, .as.number = INFINITY}, "inf"}};
    lua_State *L = new_state();
    const lctx_lua *lc = lctx_lua_open(L);
    bool passed = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        lctx *ctx = lc->with_cancel(lc->background());
        lc->cancel_cause(ctx, &cases[i].cause);
        size_t length = lc->cause_text(ctx, text, sizeof text);
        passed = passed && length == strlen(cases[i].text) && strcmp(text, cases[i].text) == 0;
        lc->unref(ctx);
    }
    lua_close(L);
    return passed;
}

static void count(lctx_after *after, void *arg)
{
    (void)after;
    ++*(int *)arg;
}

static int c_is_called_back_at_the_end_of_a_context_of_lua(void)
{
    lua_State *L = new_state();
    const lctx_lua *lc = lctx_lua_open(L);
    int called = 0, kept = 0;
    bool passed =
        passes(L, "ctx, cancel = require('lcontext').with_cancel(require('lcontext').background()) return true", 0);
    lua_getglobal(L, "ctx");
    lctx *ctx = lc->check(L, -1);
    lctx_after *after = lc->after_func(ctx, count, &called);
    lctx_after *stopped = lc->after_func(ctx, count, &kept);
    lctx_notifier *notifier = lc->notifier_new(ctx);
    passed = passed && after && stopped && lc->after_stop(stopped) && lc->notifier_fd(notifier) >= 0 &&
             !lc->wait(ctx, 0) && passes(L, "cancel() return true", 0) && called == 1 && kept == 0 &&
             lc->wait(ctx, 1) && !lc->after_stop(after);
    lc->after_free(after);
    lc->after_free(stopped);
    lc->notifier_free(notifier);
    lua_close(L);
    return passed;
}

static int a_reference_of_c_keeps_a_context_of_lua(void)
{
    lua_State *L = new_state();
    const lctx_lua *lc = lctx_lua_open(L);
    bool passed = passes(L, "ctx = require('lcontext').background():with_timeout(100) return true", 0);
    lua_getglobal(L, "ctx");
    lctx *ctx = lc->ref(lc->check(L, -1));
    lua_pop(L, 1);
    passed = passed && passes(L, "ctx = nil collectgarbage() collectgarbage() return true", 0);
    passed = passed && lc->err(ctx) == LCTX_LIVE;
    lc->push(L, ctx);
    lua_setglobal(L, "back");
    passed = passed && passes(L, "return back:err() == nil and back:remaining() > 0", 0);
    lua_close(L);
    passed = passed && lc->err(ctx) == LCTX_LIVE; /* the library stays: it is in use by the timer thread */
    lc->unref(ctx);
    return passed;
}

int main(void)
{
    static const host_test tests[] = {
        {"the table is complete", the_table_is_complete},
        {"another version is refused", another_version_is_refused},
        {"what C pushes, Lua has", what_c_pushes_lua_has},
        {"what Lua passes, C reads", what_lua_passes_c_reads},
        {"causes print as Lua prints them", causes_print_as_lua_prints_them},
        {"C is called back at the end of a context of Lua", c_is_called_back_at_the_end_of_a_context_of_lua},
        {"a reference of C keeps a context of Lua", a_reference_of_c_keeps_a_context_of_lua}};
    return HOST_MAIN(tests);
}
