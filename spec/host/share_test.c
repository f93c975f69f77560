/* SPDX-License-Identifier: MIT
 *
 * Contexts that several Lua states know, each in a thread of its own. The seed of the random test is printed and can
 * be given in SEED.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "host.h"

enum { THREADS = 4, SLOTS = 16 };

/* Tokens that the threads pass to one another. */
static _Atomic long long slots[SLOTS];

static int slot_get(lua_State *L)
{
    lua_pushinteger(L, atomic_load(&slots[luaL_checkinteger(L, 1) % SLOTS]));
    return 1;
}

static int slot_set(lua_State *L)
{
    atomic_store(&slots[luaL_checkinteger(L, 1) % SLOTS], luaL_checkinteger(L, 2));
    return 0;
}

static lua_State *new_state_with_slots(void)
{
    lua_State *L = new_state();
    lua_register(L, "get", slot_get);
    lua_register(L, "set", slot_set);
    return L;
}

typedef struct worker {
    pthread_t thread;
    const char *script;
    long argument;
    int passed;
} worker;

static void *work(void *arg)
{
    worker *self = arg;
    lua_State *L = new_state_with_slots();
    self->passed = passes(L, self->script, self->argument);
    lua_close(L);
    return NULL;
}

/* Runs the script in THREADS threads with a state each, while `meanwhile` runs in L. */
static int pass_together(const char *script, lua_State *L, const char *meanwhile, long argument)
{
    worker workers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.script = script, .argument = argument + i};
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    int passed = passes(L, meanwhile, argument);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        passed = passed && workers[i].passed;
    }
    return passed;
}

static int a_cancel_wakes_all_threads_that_wait(void)
{
    lua_State *L = new_state_with_slots();
    int passed = passes(L,
                        "local context = require 'lcontext'\n"
                        "ctx, cancel = context.background():with_value('k', 'v'):with_cancel()\n"
                        "ready, is_ready = context.with_cancel(context.background())\n"
                        "set(0, ctx:share()) for i = 1, 4 do set(i, 0) end\n"
                        "return true\n",
                        0) &&
                 pass_together("local context = require 'lcontext'\n"
                               "local ctx = context.adopt(get(0))\n"
                               "assert(ctx:value('k') == 'v' and not ctx:err())\n"
                               "set(..., 1)\n"
                               "assert(ctx:done():wait(30), 'not woken')\n"
                               "return ctx:err() == context.Canceled and ctx:cause() == 'enough'\n",
                               L,
                               "for i = 1, 4 do\n"
                               "  while get(i) == 0 do end\n"
                               "end\n"
                               "cancel('enough')\n"
                               "return true\n",
                               1);
    lua_close(L);
    return passed;
}

static int a_deadline_made_here_holds_there(void)
{
    lua_State *L = new_state_with_slots();
    int passed = passes(L,
                        "local context = require 'lcontext'\n"
                        "ctx = context.with_timeout(context.background(), 0.05, 'too slow')\n"
                        "set(0, ctx:share())\n"
                        "return true\n",
                        0) &&
                 pass_together("local context = require 'lcontext'\n"
                               "local ctx = context.adopt(get(0))\n"
                               "assert(ctx:done():wait(30), 'not woken')\n"
                               "return ctx:err() == context.DeadlineExceeded and ctx:cause() == 'too slow'\n",
                               L, "return ctx:done():wait(30)", 1);
    lua_close(L);
    return passed;
}

static int a_state_is_closed_while_another_holds_its_context(void)
{
    lua_State *maker = new_state_with_slots(), *holder = new_state_with_slots();
    int passed = passes(maker,
                        "local context = require 'lcontext'\n"
                        "local why = setmetatable({}, {__tostring = function() return 'why' end})\n"
                        "ctx, cancel = context.background():with_values{s = 'x', t = {}}:with_timeout(1000)\n"
                        "ended, stop = ctx:with_cancel()\n"
                        "ctx:after_func(function() error('the state of this callback is closed') end)\n"
                        "set(0, ctx:share(cancel)) set(1, ended:share())\n"
                        "stop(why)\n"
                        "return true\n",
                        0) &&
                 passes(holder,
                        "context = require 'lcontext'\n"
                        "ctx, cancel = context.adopt(get(0))\n"
                        "ended = context.adopt(get(1))\n"
                        "return ctx:value('s') == 'x'\n",
                        0);
    lua_close(maker);
    passed = passed && passes(holder,
                              "assert(ctx:value('s') == 'x' and ctx:value('t') == nil and not ctx:err())\n"
                              "assert(ended:cause() == 'why' and ctx:remaining() > 0)\n"
                              "assert(context.stats().contexts == 3)\n"
                              "cancel()\n"
                              "assert(ctx:err() == context.Canceled)\n"
                              "ctx, cancel, ended = nil\n"
                              "collectgarbage() collectgarbage()\n"
                              "return context.stats().contexts == 0\n",
                              0);
    lua_close(holder);
    return passed;
}

/* Every thread opens and closes states, in which it makes, shares, adopts, cancels and drops at random. */
static const char wild[] = "local context = require 'lcontext'\n"
                           "math.randomseed(...)\n"
                           "local mine = { context.background() }\n"
                           "local function any() return mine[math.random(#mine)] end\n"
                           "for i = 1, 300 do\n"
                           "  local dice, ctx, cancel = math.random(12)\n"
                           "  if dice <= 3 then ctx, cancel = any():with_cancel()\n"
                           "  elseif dice == 4 then ctx, cancel = any():with_timeout(math.random() * 0.01, {})\n"
                           "  elseif dice == 5 then ctx = any():with_value('k' .. i, i % 2 == 0 and i or {})\n"
                           "  elseif dice == 6 then ctx, cancel = context.merge(any(), any())\n"
                           "  elseif dice <= 9 then\n"
                           "    ctx, cancel = context.adopt(get(math.random(0, 15)))\n"
                           "    if not ctx then cancel = nil end\n"
                           "  elseif dice == 10 then any():after_func(function() any():err() end)\n"
                           "  elseif dice == 11 then table.remove(mine, math.random(2, math.max(2, #mine)))\n"
                           "  else collectgarbage('step', 100) end\n"
                           "  if ctx then\n"
                           "    table.insert(mine, ctx)\n"
                           "    set(math.random(0, 15), ctx:share(math.random() < 0.5 and cancel or nil))\n"
                           "    tostring(ctx) ctx:value('k' .. i - 5)\n"
                           "    if ctx:done() and math.random() < 0.1 then ctx:done():wait(0.001) end\n"
                           "  end\n"
                           "  if cancel and math.random() < 0.3 then cancel(math.random() < 0.5 and {} or i) end\n"
                           "  if #mine > 30 then mine = { context.background() } end\n"
                           "  context.dispatch()\n"
                           "end\n"
                           "return true\n";

static int all_of_it_at_random(void)
{
    const char *given = getenv("SEED");
    long seed = given ? atol(given) : (long)time(NULL) ^ getpid();
    lua_State *L = new_state_with_slots();
    int passed = 1;
    printf("SEED=%ld\n", seed);
    for (int round = 0; round < 20 && passed; round++)
        passed = pass_together(wild, L, "return true", seed + round * THREADS);
    passed = passed && passes(L,
                              "local stats = require('lcontext').stats()\n"
                              "for name, count in pairs(stats) do assert(count == 0, name .. ': ' .. count) end\n"
                              "return true\n",
                              0);
    lua_close(L);
    return passed;
}

int main(void)
{
    static const host_test tests[] = {
        {"a cancel wakes all threads that wait", a_cancel_wakes_all_threads_that_wait},
        {"a deadline made here holds there", a_deadline_made_here_holds_there},
        {"a state is closed while another holds its context", a_state_is_closed_while_another_holds_its_context},
        {"all of it at random", all_of_it_at_random}};
    return HOST_MAIN(tests);
}
