/* SPDX-License-Identifier: MIT
 *
 * values.h - tagged values, and questions about contexts, in few words.
 */
#ifndef VALUES_H
#define VALUES_H

#include "check.h"

static inline lctx_any of_string(const char *string)
{
    return (lctx_any){.type = LCTX_STRING, .as.string = string, .of.length = strlen(string)};
}

static inline lctx_any of_integer(int64_t integer)
{
    return (lctx_any){.type = LCTX_INTEGER, .as.integer = integer};
}

static inline lctx_any of_boolean(bool boolean)
{
    return (lctx_any){.type = LCTX_BOOLEAN, .as.boolean = boolean};
}

static inline lctx_any of_pointer(void *pointer, void (*drop)(void *))
{
    return (lctx_any){.type = LCTX_POINTER, .as.pointer = pointer, .of.drop = drop};
}

static inline bool is_string(const lctx_any *any, const char *string)
{
    size_t length = strlen(string);
    return any->type == LCTX_STRING && any->of.length == length && memcmp(any->as.string, string, length) == 0;
}

static inline void cancel_with(lctx *ctx, const char *cause)
{
    const lctx_any any = of_string(cause);
    CHECK(lctx_cancel_cause(ctx, &any) == 0);
}

/* NULL: no cause. */
static inline bool cause_is(lctx *ctx, const char *cause)
{
    lctx_any any;
    return lctx_cause(ctx, &any) ? cause && is_string(&any, cause) : !cause;
}

static inline bool ended_as(lctx *ctx, lctx_err_t err, const char *cause)
{
    return lctx_err(ctx) == err && cause_is(ctx, cause);
}

static inline bool value_is(lctx *ctx, const void *key, const char *value)
{
    lctx_any any;
    return lctx_value(ctx, key, &any) ? value && is_string(&any, value) : !value;
}

static inline lctx_stats stats_now(void)
{
    lctx_stats stats;
    lctx_get_stats(&stats);
    return stats;
}

static inline void unref_all(lctx **contexts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        lctx_unref(contexts[i]);
}

/* What `drop` is called with counts how often. */
static inline void count_drop(void *counter)
{
    ++*(int *)counter;
}

#endif
