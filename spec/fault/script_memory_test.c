/* SPDX-License-Identifier: MIT
 *
 * No memory in Lua: scripts that use the whole API (scripts/), in which every allocation of the library fails once in
 * turn, and every one of Lua's. Whatever fails, and wherever: an error comes up, when the state is closed nothing is
 * left, and a state that is opened then works. What goes on without an error is counted, by what was being used.
 *
 * SHOW=1 in the environment shows the errors, FIRST=n begins with the nth. To be run from the root of the tree.
 */
// link: -llua5.4 -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=free
#include <sys/time.h>

#include "../core/check.h"
#include "faulty_lua.h"

#define SCRIPTS "spec/fault/scripts/"

/* ---- What comes of a fault ---------------------------------------------------------------------------------- */

enum { STEPS = 64, NEVER = 1 << 30 };

#define HANG_SECONDS 3.0

#if defined(CHECK_ASAN) || defined(CHECK_TSAN)
#define STRIDE 7 /* not every single allocation */
#else
#define STRIDE 1
#endif

/* A task that has no memory to begin with never ends for its group. */
static const char may_hang[] = "groups";

typedef enum outcome { ERROR, WARNING, FINALIZER_LOST, HANG, NOTHING, OUTCOMES } outcome;

static struct {
    long failed, came[OUTCOMES];
    long unseen[STEPS]; /* of NOTHING, by what was being used */
} figures;

static char steps[STEPS][48];
static int last_step, failed_in_step;

static bool has_failed(void)
{
    return failed || (lua_nth > 0 && lua_requests >= lua_nth);
}

/* step(name): what the script uses next. */
static int step(lua_State *L)
{
    if (!has_failed() && last_step < STEPS - 1) {
        snprintf(steps[++last_step], sizeof steps[0], "%s", luaL_checkstring(L, 1));
        failed_in_step = last_step;
    }
    return 0;
}

static volatile sig_atomic_t hangs;

static void count(int status)
{
    outcome came = hangs              ? HANG
                   : status != LUA_OK ? ERROR
                   : finalizer_lost   ? FINALIZER_LOST
                   : was_warned       ? WARNING
                                      : NOTHING;
    figures.failed++;
    figures.came[came]++;
    if (came == NOTHING)
        figures.unseen[failed_in_step]++;
}

static void show_figures(void)
{
    static const char *const names[OUTCOMES] = {"errors", "warnings", "finalizers lost", "hangs", "went on"};
    printf("%s: %ld failed:", check_running, figures.failed);
    for (int i = 0; i < OUTCOMES; i++)
        printf(" %ld %s%s", figures.came[i], names[i], i < OUTCOMES - 1 ? "," : "\n");
    for (int i = 0; i < STEPS; i++)
        if (figures.unseen[i] > 0)
            printf("  %4ld went on in: %s\n", figures.unseen[i], steps[i]);
    memset(&figures, 0, sizeof figures);
}

/* ---- One script, with one fault ----------------------------------------------------------------------------------
 */

static void load(lua_State *L, const char *path)
{
    if (luaL_loadfile(L, path) != LUA_OK) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        abort();
    }
}

/* What the scripts are made of is read before anything fails. */
static lua_State *new_loaded_state(const char *script)
{
    static const char *const modules[][2] = {{"lcontext", "lua/lcontext/init.lua"},
                                             {"lcontext.tasks", "lua/lcontext/tasks.lua"},
                                             {"lcontext.loop", "lua/lcontext/loop.lua"},
                                             {"lcontext.group", "lua/lcontext/group.lua"}};
    static const char light;
    lua_State *L = new_faulty_state();
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        load(L, modules[i][1]);
        lua_setfield(L, -2, modules[i][0]);
    }
    lua_settop(L, 0);
    load(L, script);
    lua_pushcfunction(L, step);
    lua_pushlightuserdata(L, (void *)&light);
    load(L, SCRIPTS "everything.lua");
    return L;
}

static lua_State *volatile watched;

static void leave_hook(lua_State *L, lua_Debug *info)
{
    (void)info;
    lua_sethook(L, NULL, 0, 0);
    luaL_traceback(L, L, "hangs", 0);
    lua_error(L);
}

/* A script that waits for what was lost is made to go on: so the others have their turn, too. */
static void on_hang(int signal)
{
    (void)signal;
    hangs = 1;
    lua_sethook(watched, leave_hook, LUA_MASKCALL | LUA_MASKCOUNT, 1);
}

static void set_watchdog(double seconds)
{
    struct itimerval time = {.it_value = {(long)seconds, (long)(seconds * 1e6) % 1000000}};
    time.it_interval = time.it_value;
    setitimer(ITIMER_REAL, &time, NULL);
}

static int call_watched(lua_State *L)
{
    watched = L;
    hangs = 0;
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_hang}, NULL); /* waits are to be interrupted */
    set_watchdog(HANG_SECONDS);
    int status = lua_pcall(L, 3, 0, 0);
    set_watchdog(0);
    signal(SIGALRM, check_hangs);
    alarm(60);
    return status;
}

/* A new state, in which everything works and nothing is locked. */
static bool works_afterwards(void)
{
    static const char script[] = "local context = require 'lcontext.core'.context\n"
                                 "context.interrupt { mode = 'signal', count = 1000, grace = 0.1 }\n"
                                 "local called = false\n"
                                 "local ctx = context.with_timeout(context.background(), 0.0001, 'late')\n"
                                 "ctx:with_value('k', {}):after_func(function() called = true end)\n"
                                 "local live <close> = context.with_cancel(context.background())\n"
                                 "assert(live:pcall(live.share, live))\n"
                                 "assert(ctx:done():wait(10) and ctx:cause() == 'late')\n"
                                 "while not called do context.dispatch(10) end\n"
                                 "assert(debug.gethook() == nil)\n";
    lua_State *L = new_faulty_state();
    bool works = luaL_dostring(L, script) == LUA_OK;
    if (!works)
        fprintf(stderr, "afterwards: %s\n", lua_tostring(L, -1));
    lua_close(L);
    return works;
}

static bool is_expected(bool faulty, int status)
{
    return hangs ? faulty && strstr(steps[failed_in_step], may_hang) != NULL : faulty || status == LUA_OK;
}

/* False when this was the last one: nothing has failed, or everything has gone wrong. */
static bool run_with_fault(const char *script, long core_fault, long lua_fault)
{
    long before = atomic_load(&blocks);
    lua_State *L = new_loaded_state(script);
    last_step = 0;
    lua_requests = 0;
    failed = false;
    countdown = core_fault;
    lua_nth = lua_fault;
    int status = call_watched(L);
    bool faulty = has_failed();
    lua_nth = countdown = 0;
    const char *error = status != LUA_OK && lua_isstring(L, -1) ? lua_tostring(L, -1) : "";
    if (getenv("SHOW") || !CHECK(is_expected(faulty, status)))
        fprintf(stderr, "%ld %ld in \"%s\": %s\n", core_fault, lua_fault, steps[failed_in_step], error);
    if (faulty)
        count(status);
    lua_close(L);
    bool clean = nothing_left(), lost = finalizer_lost, works = works_afterwards();
    /* An empty table of keys goes with the key after: hence the comparison here. */
    if (!CHECK(clean && works && (lost || atomic_load(&blocks) == before))) {
        fprintf(stderr, "  after fault %ld %ld in \"%s\": %ld blocks and %zu bytes of Lua left\n", core_fault,
                lua_fault, steps[failed_in_step], atomic_load(&blocks) - before, lua_bytes);
        lctx_get_stats(&base);
    }
    return faulty && atomic_load(&check_failures) < 10;
}

/* The first test that runs fills what is kept for ever. */
static void warm_up(void)
{
    CHECK(!run_with_fault(SCRIPTS "everything.lua", 0, 0));
}

static long first(void)
{
    const char *given = getenv("FIRST");
    return given ? atol(given) : 1;
}

static void fail_core_everywhere(const char *script, int stride)
{
    long nth = first();
    while (run_with_fault(script, nth, 0))
        nth += stride * STRIDE;
    CHECK(figures.came[ERROR] > figures.failed / 2 && nth > 100);
    show_figures();
}

static void fail_lua_everywhere(const char *script, long failures, int stride)
{
    long nth = first();
    lua_failures = failures;
    while (run_with_fault(script, 0, nth))
        nth += stride * STRIDE;
    CHECK(figures.came[ERROR] > figures.failed / 2 && nth > 500);
    show_figures();
}

/* ---- Tests --------------------------------------------------------------------------------------------------------
 */

TEST(the_library_runs_out_of_memory)
{
    fail_core_everywhere(SCRIPTS "everything.lua", 1);
}

TEST(lua_runs_out_of_memory)
{
    fail_lua_everywhere(SCRIPTS "everything.lua", 2, 1);
}

TEST(lua_has_no_memory_any_more)
{
    fail_lua_everywhere(SCRIPTS "everything.lua", NEVER, 3);
}

#ifndef CHECK_TSAN
TEST(the_library_runs_out_of_memory_in_guarded_calls)
{
    fail_core_everywhere(SCRIPTS "guarded.lua", 2);
}

TEST(lua_runs_out_of_memory_in_guarded_calls)
{
    fail_lua_everywhere(SCRIPTS "guarded.lua", 2, 5);
}

/* The alarms of a script that goes on after its stop are set by the timer thread. */
static bool stops_a_stubborn_script(long elsewhere, double grace)
{
    static const char script[] = "local grace = ...\n"
                                 "local context = require 'lcontext.core'.context\n"
                                 "context.interrupt { grace = grace }\n"
                                 "local function forever() while true do end end\n"
                                 "local ctx = context.with_timeout(context.background(), 0.001)\n"
                                 "local ok, err = ctx:pcall(function() pcall(forever) forever() end)\n"
                                 "assert(not ok and err == context.DeadlineExceeded)\n";
    lua_State *L = new_faulty_state();
    atomic_store(&countdown_elsewhere, elsewhere);
    luaL_loadstring(L, script);
    lua_pushnumber(L, grace);
    bool stopped = lua_pcall(L, 1, 0, 0) == LUA_OK;
    atomic_store(&countdown_elsewhere, 0);
    lua_close(L);
    return stopped && nothing_left() && works_afterwards();
}

TEST(the_timer_thread_runs_out_of_memory)
{
    CHECK(stops_a_stubborn_script(-1, 3600)); /* without alarms a stop is hard at once */
    for (long nth = 1; nth <= 6; nth++)
        CHECK(stops_a_stubborn_script(nth, 0.01));
}
#endif

int main(int argc, char **argv)
{
    static const check_case cases[] = {
        CASE(the_library_runs_out_of_memory),
        CASE(lua_runs_out_of_memory),
        CASE(lua_has_no_memory_any_more),
#ifndef CHECK_TSAN /* it holds signals back until a script that never ends has ended */
        CASE(the_library_runs_out_of_memory_in_guarded_calls),
        CASE(lua_runs_out_of_memory_in_guarded_calls),
        CASE(the_timer_thread_runs_out_of_memory),
#endif
    };
    is_other = false;
    warm_up();
    return CHECK_MAIN(cases);
}
