/* SPDX-License-Identifier: MIT
 *
 * Stopping scripts in a host of several threads, with a Lua state each, that uses the signal itself.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "host.h"

enum { THREADS = 4 };

static atomic_int host_signals;

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info, (void)context;
    atomic_fetch_add(&host_signals, 1);
}

static int passes_in_new_state(const char *script)
{
    lua_State *L = new_state();
    int passed = passes(L, script, 0);
    lua_close(L);
    return passed;
}

static const char many_stops[] =
    "local context = require 'lcontext'\n"
    "for i = 1, 100 do\n"
    "  local ctx <close> = context.with_timeout(context.background(), 0.001 + i % 5 / 1000)\n"
    "  local ok, err = ctx:pcall(function()\n"
    "    local co = coroutine.wrap(function() while true do pcall(function() local t = {} t[1] = t end) end end)\n"
    "    co()\n"
    "  end)\n"
    "  assert(not ok and err == context.DeadlineExceeded, err)\n"
    "  local live <close> = context.with_cancel(context.background())\n"
    "  assert(select(2, live:pcall(function(x) return x + 1 end, i)) == i + 1)\n"
    "  assert(debug.gethook() == nil)\n"
    "end\n"
    "return true\n";

typedef struct worker {
    pthread_t thread;
    int blocked, passed;
} worker;

static void *work(void *arg)
{
    worker *self = arg;
    sigset_t urgent;
    sigemptyset(&urgent);
    sigaddset(&urgent, SIGURG);
    pthread_sigmask(self->blocked ? SIG_BLOCK : SIG_UNBLOCK, &urgent, NULL);
    self->passed = passes_in_new_state(many_stops);
    return NULL;
}

static int threads_with_a_state_each_are_stopped_all_at_once(void)
{
    worker workers[THREADS] = {0};
    int passed = 1;
    for (int i = 0; i < THREADS; i++) {
        workers[i].blocked = i % 2;
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        passed = passed && workers[i].passed;
    }
    return passed;
}

static int send_signal(lua_State *L)
{
    (void)L;
    raise(SIGURG);
    return 0;
}

static int a_handler_of_the_host_is_called_and_does_not_stop_a_script(void)
{
    lua_State *L = new_state();
    lua_register(L, "send_signal", send_signal);
    atomic_store(&host_signals, 0);
    int passed = passes(L,
                        "local context = require 'lcontext'\n"
                        "local ctx <close> = context.with_cancel(context.background())\n"
                        "local ok, n = ctx:pcall(function()\n"
                        "  local n = 0\n"
                        "  for i = 1, 1000 do n = n + i if i == 500 then send_signal() end end\n"
                        "  return n\n"
                        "end)\n"
                        "return ok and n == 500500\n",
                        0);
    lua_close(L);
    return passed && atomic_load(&host_signals) == 1;
}

static int states_come_and_go(void)
{
    for (int i = 0; i < 20; i++)
        if (!passes_in_new_state("local context = require 'lcontext'\n"
                                 "local ctx = context.with_timeout(context.background(), 0.002)\n"
                                 "local left = coroutine.wrap(function() ctx:pcall(coroutine.yield) end)\n"
                                 "left()\n" /* a call that is still entered when the state is closed */
                                 "return not ctx:pcall(function() while true do end end)\n"))
            return 0;
    return 1;
}

/* The handler knows of both; the one that was entered first goes first. */
static int two_states_of_one_thread_are_closed_in_any_order(void)
{
    static const char script[] = "local context = require 'lcontext'\n"
                                 "local ctx = context.with_timeout(context.background(), 0.002)\n"
                                 "local left = coroutine.wrap(function() ctx:pcall(coroutine.yield) end)\n"
                                 "left()\n"
                                 "kept = left\n"
                                 "return true\n";
    int passed = 1;
    for (int first = 0; first < 2; first++) {
        lua_State *states[] = {new_state(), new_state(), new_state()};
        for (int i = 0; i < 3; i++)
            passed = passes(states[i], script, 0) && passed;
        lua_close(states[first]);
        passed = passes(states[2], many_stops, 0) && passed;
        lua_close(states[2]);
        lua_close(states[1 - first]);
    }
    return passed;
}

int main(void)
{
    static const host_test tests[] = {
        {"a handler of the host is called and does not stop a script",
         a_handler_of_the_host_is_called_and_does_not_stop_a_script},
        {"threads with a state each are stopped all at once", threads_with_a_state_each_are_stopped_all_at_once},
        {"two states of one thread are closed in any order", two_states_of_one_thread_are_closed_in_any_order},
        {"states come and go", states_come_and_go}};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = on_signal;
    sigaction(SIGURG, &action, NULL); /* the host was first */
    return HOST_MAIN(tests);
}
