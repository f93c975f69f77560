/* SPDX-License-Identifier: MIT
 *
 * grammar.h - bytes -> a script. c, k, d, s, t are tables of contexts, cancel functions, Dones, stop handles and
 * coroutines. Every statement is protected, so that what is wrong does not end the script. Whatever waits has a short
 * limit, and every loop ends: by B(), which counts, or because it stands directly in a call that is stopped.
 */
#ifndef GRAMMAR_H
#define GRAMMAR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCRIPT_MAX = 16384, SCRIPT_ENOUGH = 12000, DEPTH = 4 };

typedef struct grammar {
    const uint8_t *at, *end;
    char *text;
    size_t length;
} grammar;

static inline unsigned take(grammar *g)
{
    return g->at < g->end ? *g->at++ : 0;
}

static inline unsigned dice(grammar *g, unsigned sides)
{
    return take(g) % sides;
}

static inline bool has_room(const grammar *g)
{
    return g->length < SCRIPT_ENOUGH;
}

__attribute__((format(printf, 2, 3))) static inline void emit(grammar *g, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(g->text + g->length, SCRIPT_MAX - g->length, format, args);
    va_end(args);
    g->length += (size_t)n < SCRIPT_MAX - g->length ? (size_t)n : SCRIPT_MAX - 1 - g->length;
}

static inline void statement(grammar *g, int depth);
static inline void function(grammar *g, int depth);

/* ---- Expressions ------------------------------------------------------------------------------------------------ */

static inline void item(grammar *g, const char *table)
{
    emit(g, "%s[%u]", table, 1 + dice(g, 8));
}

static inline void value(grammar *g, int depth)
{
    static const char *const plain[] = {
        "nil",
        "true",
        "false",
        "1",
        "2.5",
        "-0.0",
        "0/0",
        "math.huge",
        "math.mininteger",
        "'user'",
        "''",
        "{}",
        "('x'):rep(5000)",
        "print",
        "io.stdout",
        "M.Canceled",
        "M.DeadlineExceeded",
        "M.key('name')",
        "M.key()",
        "M",
        "coroutine.running()",
        "setmetatable({}, { __eq = error, __tostring = error, __gc = function() k[1]() end })",
        "stand_in(c[1])",
        "{ done = error, err = error }",
    };
    static const char *const tables[] = {"c", "k", "d", "s", "t"};
    unsigned which = dice(g, 32);
    if (which < sizeof plain / sizeof *plain)
        emit(g, "%s", plain[which]);
    else if (which < 30 || depth >= DEPTH)
        item(g, tables[which % 5]);
    else
        function(g, depth + 1);
}

static inline void context(grammar *g, int depth)
{
    static const char *const odd[] = {"nil", "12", "'ctx'", "{}", "d[1]", "M.todo()", "M.background()", "io.stdout"};
    unsigned which = take(g);
    if (which >= 248) {
        emit(g, "(%s)", odd[which - 248]);
    } else if (which >= 240) {
        emit(g, "(");
        value(g, depth);
        emit(g, ")");
    } else {
        emit(g, "c[%u]", 1 + which % 8);
    }
}

static inline void done(grammar *g)
{
    static const char *const odd[] = {"nil", "12", "c[1]", "{}"};
    unsigned which = take(g);
    if (which >= 248)
        emit(g, "%s", odd[which % 4]);
    else if (which >= 128)
        emit(g, "c[%u]:done()", 1 + which % 8);
    else
        emit(g, "d[%u]", 1 + which % 8);
}

/* For something that waits. */
static inline void moment(grammar *g)
{
    static const char *const spans[] = {"0", "0", "0.0002", "0.001", "-1", "0/0", "'x'", "-math.huge"};
    emit(g, "%s", spans[dice(g, 8)]);
}

static inline void span(grammar *g)
{
    static const char *const spans[] = {"0",  "0.0001", "0.0005",    "0.001",      "0.002", "1",  "3600",  "1e10",
                                        "-1", "1e300",  "math.huge", "-math.huge", "0/0",   "{}", "'0.1'", "nil"};
    emit(g, "%s", spans[dice(g, 16)]);
}

static inline void body(grammar *g, int depth)
{
    unsigned count = 1 + dice(g, 3);
    for (unsigned i = 0; i < count && has_room(g); i++)
        statement(g, depth + 1);
}

static inline void function(grammar *g, int depth)
{
    if (depth >= DEPTH || !has_room(g)) {
        emit(g, "function(...) return ... end");
        return;
    }
    emit(g, "function(...) if not B() then return end\n");
    body(g, depth);
    if (dice(g, 2)) {
        emit(g, "return ..., ");
        value(g, depth);
    }
    emit(g, " end");
}

/* What a stopped call runs: it may go on for ever. */
static inline void stuck(grammar *g, int depth)
{
    static const char *const ways[] = {
        "function() while true do end end",
        "function() while true do pcall(error) end end",
        "function() while true do pcall(function() while true do end end) end end",
        "function() local x <close> = canceling() while true do end end",
        "function() coroutine.wrap(function() while true do end end)() end",
        "function() local co = coroutine.wrap(function() while B do coroutine.yield() end end) while B do co() end end",
        "function() coroutine.wrap(function() local x <close> = slow_to_close() while true do end end)() end",
        "function() while true do M.background():with_timeout(0.0005):pcall(function() while true do end end) end end",
        "function() xpcall(function() while true do end end, function(e) while true do end end) end",
        "function() while true do c[2], k[2] = M.with_cancel(c[1]) end end",
        "function() while true do M.background():with_timeout(0.001):done():wait(0.01) end end",
        "function() table.sort({3, 2, 1, 5, 4}, function(a, b) while true do end end) end",
        "function() string.gsub(('x'):rep(100), '.', function() while true do end end) end",
        "function() while true do setmetatable({}, { __gc = function() k[1]() end }) end end",
    };
    unsigned which = dice(g, 20);
    if (which < sizeof ways / sizeof *ways)
        emit(g, "%s", ways[which]);
    else
        function(g, depth + 1);
}

/* ---- Statements ------------------------------------------------------------------------------------------------- */

static inline void made(grammar *g, int depth, bool with_cancel, const char *constructor)
{
    unsigned slot = 1 + dice(g, 8);
    if (with_cancel)
        emit(g, "c[%u], k[%u] = M.%s(", slot, slot, constructor);
    else
        emit(g, "c[%u] = M.%s(", slot, constructor);
    context(g, depth);
}

static inline void derive(grammar *g, int depth)
{
    switch (dice(g, 10)) {
    case 0:
    case 1:
        made(g, depth, true, "with_cancel");
        break;
    case 2:
    case 3:
        made(g, depth, true, "with_timeout");
        emit(g, ", ");
        span(g);
        emit(g, ", ");
        value(g, depth);
        break;
    case 4:
        made(g, depth, true, "with_deadline");
        emit(g, ", M.now() + ");
        span(g);
        emit(g, ", ");
        value(g, depth);
        break;
    case 5:
        made(g, depth, false, "with_value");
        emit(g, ", ");
        value(g, depth);
        emit(g, ", ");
        value(g, depth);
        break;
    case 6:
        made(g, depth, false, "with_values");
        emit(g, ", { [");
        value(g, depth);
        emit(g, "] = ");
        value(g, depth);
        emit(g, ", user = ");
        value(g, depth);
        emit(g, " }");
        break;
    case 7:
        made(g, depth, false, "without_cancel");
        break;
    default:
        made(g, depth, true, "merge");
        for (unsigned i = dice(g, 4); i > 0; i--) {
            emit(g, ", ");
            context(g, depth);
        }
    }
    emit(g, ")");
}

static inline void custom_context(grammar *g, int depth)
{
    static const char *const methods[] = {"done", "err", "deadline", "value"};
    item(g, "c");
    emit(g, " = custom(");
    context(g, depth);
    emit(g, ", {");
    for (unsigned i = dice(g, 3); i > 0; i--) {
        emit(g, "%s = ", methods[dice(g, 4)]);
        function(g, depth + 1);
        emit(g, ", ");
    }
    emit(g, "})");
}

static inline void ask(grammar *g, int depth)
{
    static const char *const questions[] = {":err()", ":cause()", ":deadline()", ":remaining()", ":value("};
    unsigned which = dice(g, 6);
    emit(g, which == 5 ? "tostring(" : "M.key(");
    context(g, depth);
    if (which < 5)
        emit(g, "%s", questions[which]);
    if (which == 4) {
        value(g, depth);
        emit(g, ")");
    }
    emit(g, ")");
}

static inline void use_done(grammar *g, int depth)
{
    (void)depth;
    static const char *const uses[] = {":closed()", ":pollfd()", ":getfd()", ":events()", ":timeout()", ":dirty()"};
    unsigned which = dice(g, 12);
    if (which < 6) {
        item(g, "d");
        emit(g, "%s", uses[which]);
    } else if (which < 9) {
        item(g, "d");
        emit(g, ":wait(");
        moment(g);
        emit(g, ")");
    } else {
        emit(g, which == 9 ? "coroutine.yield(" : "M.select(");
        for (unsigned i = dice(g, 4); i > 0; i--) {
            done(g);
            emit(g, ", ");
        }
        moment(g);
        emit(g, ")");
    }
}

static inline void guarded(grammar *g, int depth)
{
    bool by_pcall = dice(g, 2);
    emit(g, by_pcall ? "" : "call(");
    context(g, depth);
    emit(g, by_pcall ? ":with_timeout(0.001):pcall(" : ":with_timeout(0.001), ");
    stuck(g, depth);
    emit(g, ")");
}

static inline void use_coroutine(grammar *g, int depth)
{
    unsigned slot = 1 + dice(g, 8), which = dice(g, 10);
    switch (which) {
    case 0:
        emit(g, "coroutine.resume(t[%u], c[1])", slot);
        break;
    case 1:
        emit(g, "coroutine.close(t[%u])", slot);
        break;
    case 2:
        emit(g, "t[%u]()", slot);
        break;
    case 3:
        emit(g, "core.parked(t[%u])", slot);
        break;
    case 4:
        emit(g, "return coroutine.yield(c[%u], t[%u])", slot, slot);
        break;
    default:
        emit(g, "t[%u] = coroutine.%s(", slot, which < 8 ? "create" : "wrap");
        function(g, depth + 1);
        emit(g, ")");
        if (which % 2)
            emit(g, "\ncoroutine.resume(t[%u])", slot);
    }
}

static inline void use_loop(grammar *g, int depth)
{
    switch (dice(g, 6)) {
    case 0:
    case 1:
        emit(g, "loop().spawn(");
        break;
    case 2:
    case 3:
        emit(g, "loop().run(");
        break;
    case 4:
        emit(g, "loop().sleep(");
        moment(g);
        emit(g, ", ");
        context(g, depth);
        emit(g, ")");
        return;
    default:
        emit(g, "core.attach({ resume = coroutine.resume, spawn = ");
        function(g, depth + 1);
        emit(g, " })");
        return;
    }
    function(g, depth + 1);
    emit(g, ", c[1])");
}

static inline void call_with_functions(grammar *g, int depth)
{
    static const char *const calls[] = {"pcall(", "xpcall(", "while B() do pcall(", "for _ = 1, 20 do pcall("};
    unsigned which = dice(g, 4);
    emit(g, "%s", calls[which]);
    function(g, depth + 1);
    emit(g, ", ");
    function(g, depth + 1);
    emit(g, which < 2 ? ")" : ") end");
}

static inline void collect(grammar *g, int depth)
{
    (void)depth;
    static const char *const ways[] = {
        "collectgarbage()",
        "collectgarbage('step')",
        "collectgarbage('generational')",
        "collectgarbage('incremental', 50, 400)",
        "c[%u], k[%u] = nil",
        "d[%u], k[%u] = nil",
        "s[%u], t[%u] = nil",
        "c[%u], c[%u] = M.background(), M.todo()",
        "c, k, d = { M.background() }, {}, {}",
        "setmetatable({}, { __gc = function() M.dispatch() k[1]() end })",
        "setmetatable({}, { __gc = function() c[1]:done():wait(0.0002) end })",
    };
    unsigned a = 1 + dice(g, 8), which = dice(g, sizeof ways / sizeof *ways);
    if (which < 4 || which > 7)
        emit(g, "%s", ways[which]);
    else
        emit(g, "%s[%u], %s[%u] = %s",
             which == 5   ? "d"
             : which == 6 ? "s"
                          : "c",
             a, which == 6 ? "t" : "k", a, which == 7 ? "M.background()" : "nil");
}

static inline void cancel(grammar *g, int depth)
{
    item(g, "k");
    emit(g, "(");
    value(g, depth);
    emit(g, ")");
}

static inline void close_at_exit(grammar *g)
{
    emit(g, "local x <close> = ");
    item(g, dice(g, 2) ? "c" : "s");
}

static inline void after(grammar *g, int depth)
{
    item(g, "s");
    emit(g, " = M.after_func(");
    context(g, depth);
    emit(g, ", ");
    if (dice(g, 8))
        function(g, depth + 1);
    else
        value(g, depth);
    emit(g, ")");
}

static inline void rare(grammar *g, int depth)
{
    static const char *const calls[] = {
        "M.interrupt { mode = 'count', count = 1009 }",
        "M.interrupt { mode = 'signal', grace = 0.0005 }",
        "M.interrupt { signal = 28 }",
        "M.interrupt { mode = 'x', count = -1 }",
        "M.stats()",
        "M.pollfd()",
        "core.attach(nil)",
        "loop().run()",
        "package.loaded['lcontext.core'] = nil core = require 'lcontext.core'",
        "local e = tostring(M.Canceled)", /* not `..`: see bind_push_err */
        "M.Canceled:timeout(M.DeadlineExceeded:temporary())",
        "c[1].x = 1",
        "getmetatable(c[1])()",
        "error(M.Canceled)",
    };
    unsigned which = dice(g, 1 + sizeof calls / sizeof *calls);
    if (which > 0) {
        emit(g, "%s", calls[which - 1]);
        return;
    }
    emit(g, "error(");
    value(g, depth);
    emit(g, ")");
}

static inline void cancel_or_stop(grammar *g, int depth)
{
    if (dice(g, 2)) {
        cancel(g, depth);
        return;
    }
    item(g, "s");
    emit(g, "()");
}

static inline void take_done(grammar *g, int depth)
{
    item(g, "d");
    emit(g, " = ");
    context(g, depth);
    emit(g, ":done()");
}

static inline void seldom(grammar *g, int depth)
{
    switch (dice(g, 4)) {
    case 0:
        close_at_exit(g);
        break;
    case 1:
        emit(g, "M.dispatch(");
        moment(g);
        emit(g, ")");
        break;
    case 2:
        call_with_functions(g, depth);
        break;
    default:
        rare(g, depth);
    }
}

static inline void protected_statement(grammar *g, int depth)
{
    static void (*const kinds[])(grammar *, int) = {
        derive,   derive,  derive,        derive,  cancel_or_stop, cancel, after,    take_done,
        use_done, guarded, use_coroutine, collect, custom_context, ask,    use_loop, seldom,
    };
    kinds[dice(g, 16)](g, depth);
}

static inline void statement(grammar *g, int depth)
{
    if (depth >= DEPTH || !has_room(g)) {
        emit(g, "B()\n");
        return;
    }
    bool bare = depth > 0 && dice(g, 4) == 0; /* an error leaves the function, and a <close> variable stays open */
    emit(g, bare ? "do " : "pcall(function(...) ");
    protected_statement(g, depth);
    emit(g, bare ? " end\n" : " end, ...)\n");
}

#endif
