/* SPDX-License-Identifier: MIT
 *
 * How a Lua state and a process end: lua_close, os.exit with and without closing the state, and the module loaded and
 * closed again, at random moments, with everything pending and other threads cancelling at that time. What may end a
 * process runs in a child. The seed is printed and can be given in SEED.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

#include "host.h"

enum { THREADS = 2, TOKENS = 8, ROUNDS = 200 };

static long seed;

/* Of contexts of the state that is about to end: other threads adopt and cancel these meanwhile. */
static _Atomic long long tokens[TOKENS];
static atomic_int over;

static int set_token(lua_State *L)
{
    atomic_store(&tokens[luaL_checkinteger(L, 1) % TOKENS], luaL_checkinteger(L, 2));
    return 0;
}

static int get_token(lua_State *L)
{
    lua_pushinteger(L, atomic_load(&tokens[luaL_checkinteger(L, 1) % TOKENS]));
    return 1;
}

static int is_over(lua_State *L)
{
    lua_pushboolean(L, atomic_load(&over));
    return 1;
}

/* Ends the process without closing anything, as quick_exit and _exit do. */
static int leave(lua_State *L)
{
    _exit((int)luaL_checkinteger(L, 1));
}

static lua_State *new_state_with_tokens(void)
{
    lua_State *L = new_state();
    lua_register(L, "set_token", set_token);
    lua_register(L, "get_token", get_token);
    lua_register(L, "is_over", is_over);
    lua_register(L, "leave", leave);
    return L;
}

/* ---- What is pending --------------------------------------------------------------------------------------------- */

/* Leaves a state full of what is under way, with globals that keep it; then goes on until some random moment. */
static const char busy[] =
    "local context = require 'lcontext'\n"
    "local core = require 'lcontext.core'\n"
    "local random = math.random\n"
    "math.randomseed(...)\n"
    "kept, cancels = { context.background() }, {}\n"
    "local function any() return kept[random(#kept)] end\n"
    "local function keep(ctx, cancel)\n"
    "  kept[#kept + 1] = ctx cancels[#cancels + 1] = cancel\n"
    "  set_token(random(0, 7), ctx:share(cancel))\n"
    "  return ctx\n"
    "end\n"
    "local function spawn(f) local co = coroutine.create(f) coroutine.resume(co) kept[#kept + 1] = nil return co end\n"
    "threads = {}\n"
    "local finalized\n"
    "function finalized() return setmetatable({}, { __gc = function()\n"
    "  if CLOSING then return any():err() end\n"
    "  any():with_timeout(0.001):after_func(finalized)\n"
    "  local done = any():done() if done then done:wait(0) end\n"
    "  pcall(context.pcall, any(), error)\n"
    "end }) end\n"
    "local actions = {\n"
    "  function() keep(any():with_cancel()) end,\n"
    "  function() keep(any():with_timeout(random() * 0.01, {})) end,\n"
    "  function() keep(any():with_value('k', finalized())) end,\n"
    "  function() keep(context.merge(any(), any())) end,\n"
    "  function() any():after_func(function() any():with_timeout(0.001):after_func(finalized) end) end,\n"
    "  function() local done = any():done() if done then done:pollfd() end end,\n"
    "  function() context.pollfd() end,\n"
    "  function() local done = any():done()\n"
    "    if done then threads[#threads + 1] = spawn(function() done:wait(random() * 0.01) end) end end,\n"
    "  function() local ctx = any():with_cancel()\n"
    "    threads[#threads + 1] = spawn(function() ctx:pcall(coroutine.yield) end) end,\n"
    "  function() any():pcall(function() any():call(function() if any():err() then error 'ended' end end) end) end,\n"
    "  function() core.attach { resume = function(co) coroutine.resume(co) end, spawn = function(f) f() end,\n"
    "    step = function() end } end,\n"
    "  function() core.attach(nil) context.dispatch() end,\n"
    "  function() if cancels[1] then cancels[random(#cancels)](finalized()) end end,\n"
    "}\n"
    "for i = 1, random(1, 400) do pcall(actions[random(#actions)]) end\n"
    "return true\n";

/* In the middle of a guarded call, of a callback or of a task, and also with variables that are yet to be closed. */
static const char exits[] =
    "local context = require 'lcontext'\n"
    "local how = ...\n"
    "local function exit()\n"
    "  local ctx <close> = context.with_timeout(kept[#kept], 0.001)\n"
    "  if how % 3 == 0 then os.exit(true, true) elseif how % 3 == 1 then os.exit(true, false) else leave(0) end\n"
    "end\n"
    "local live, cancel = context.with_cancel(context.background())\n"
    "local ways = {\n"
    "  exit,\n"
    "  function() live:pcall(exit) end,\n"
    "  function() live:after_func(exit) cancel() context.dispatch() end,\n"
    "  function() require('lcontext.core').attach(nil) require('lcontext.loop').run(exit) end,\n"
    "  function() coroutine.wrap(exit)() end,\n"
    "  function() context.with_timeout(live, 0.002):pcall(function() while true do pcall(exit) end end) end,\n"
    "}\n"
    "ways[how // 3 % #ways + 1]()\n"
    "exit()\n";

/* Cancels whatever the other state has shared, again and again. */
static const char cancels[] =
    "local context = require 'lcontext'\n"
    "local mine = {}\n"
    "math.randomseed(...)\n"
    "while not is_over() do\n"
    "  local ctx, cancel = context.adopt(get_token(math.random(0, 7)))\n"
    "  if ctx then\n"
    "    mine[math.random(20)] = ctx:with_cancel()\n"
    "    local done = ctx:done()\n"
    "    if done and math.random() < 0.1 then done:wait(0.0005) end\n"
    "  end\n"
    "  if ctx and cancel and math.random() < 0.2 then cancel(math.random() < 0.5 and {} or 'x') end\n"
    "end\n"
    "return true\n";

typedef struct worker {
    pthread_t thread;
    long seed;
    int passed;
} worker;

static void *work(void *arg)
{
    worker *self = arg;
    lua_State *L = new_state_with_tokens();
    self->passed = passes(L, cancels, self->seed);
    lua_close(L);
    return NULL;
}

static void start_workers(worker *workers, long from)
{
    atomic_store(&over, 0);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.seed = from + i};
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
}

static int join_workers(worker *workers)
{
    int passed = 1;
    atomic_store(&over, 1);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        passed = passed && workers[i].passed;
    }
    return passed;
}

/* Callbacks that fail have their say on stderr otherwise. */
static lua_State *new_busy_state(long from, int *passed)
{
    lua_State *L = new_state_with_tokens();
    lua_warning(L, "@off", 0);
    *passed = passes(L, busy, from);
    return L;
}

static int nothing_is_left(void)
{
    lua_State *L = new_state();
    int passed = passes(L,
                        "local context = require 'lcontext'\n"
                        "local limit = context.now() + 10\n" /* the timer thread may be about to give back */
                        "while context.now() < limit do\n"
                        "  local left = 0\n"
                        "  for _, count in pairs(context.stats()) do left = left + count end\n"
                        "  if left == 0 then return true end\n"
                        "end\n"
                        "for name, count in pairs(context.stats()) do print(name, count) end\n",
                        0);
    lua_close(L);
    return passed;
}

/* ---- Tests ---------------------------------------------------------------------------------------------------------
 */

static int a_state_is_closed_while_others_cancel_its_contexts(void)
{
    worker workers[THREADS];
    int passed = 1, made;
    start_workers(workers, seed);
    for (int round = 0; round < ROUNDS && passed; round++) {
        lua_State *L = new_busy_state(seed + round, &made);
        passed = made;
        /* What finalizers make while a state is being closed Lua never finalizes. */
        lua_pushboolean(L, 1);
        lua_setglobal(L, "CLOSING");
        lua_close(L);
    }
    passed = join_workers(workers) && passed;
    return nothing_is_left() && passed;
}

/* Runs in a child; returns only if the process was not ended. */
static int exit_at_random(long round)
{
    worker workers[THREADS];
    int made;
    alarm(20);
    start_workers(workers, seed + round);
    lua_State *L = new_busy_state(seed + round, &made);
    if (made)
        passes(L, exits, labs(seed + round) % 18);
    return 1;
}

static int ends_well(int (*run)(long round), long round)
{
    int status = -1;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(100 + run(round));
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 1;
    printf("SEED=%ld: status %#x\n", seed + round, (unsigned)status);
    return 0;
}

static int processes_exit_at_random_moments(void)
{
    int passed = 1;
    for (long round = 0; round < ROUNDS && passed; round++)
        passed = ends_well(exit_at_random, round);
    return passed;
}

/* The module is unloaded with the last state: its threads and handlers must not be left without code. */
static int load_and_close_at_random(long round)
{
    int made = 1;
    alarm(20);
    for (long i = 0; i < 5 && made; i++)
        lua_close(new_busy_state(seed + round + i, &made));
    nanosleep(&(struct timespec){0, 5000000}, NULL);
    exit(!made);
}

static int the_module_is_loaded_and_closed_again_and_again(void)
{
    int passed = 1;
    for (long round = 0; round < ROUNDS / 3 && passed; round++)
        passed = ends_well(load_and_close_at_random, round);
    return passed;
}

int main(void)
{
    static const host_test tests[] = {
        {"the module is loaded and closed again and again", the_module_is_loaded_and_closed_again_and_again},
        {"processes exit at random moments", processes_exit_at_random_moments},
        {"a state is closed while others cancel its contexts", a_state_is_closed_while_others_cancel_its_contexts}};
    const char *given = getenv("SEED");
    seed = given ? atol(given) : (long)time(NULL) ^ getpid();
    printf("SEED=%ld\n", seed);
    return HOST_MAIN(tests);
}
