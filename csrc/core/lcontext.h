/* SPDX-License-Identifier: MIT
 *
 * lcontext.h - cancellation, deadlines and request-scoped values for C programs and for Lua.
 *
 * A context is a node of a tree. It is LIVE until it is ENDED, once and for good: by a cancel, by its
 * deadline, by the end of its parent, or because nothing holds it any more. The end flows down to
 * everything derived from it; nothing flows up.
 *
 * Threads.    Every function may be called from any thread at any time, on shared contexts too, unless its
 *             paragraph says otherwise. No lock of the library is held while a callback of yours runs.
 * Ownership.  A context is reference-counted. A function that returns a context returns a reference of
 *             yours: give it back with lctx_unref. A child holds its parent; a parent does not hold its
 *             children. When the last reference goes, a context that was live ends with LCTX_CANCELED.
 * Time.       Durations are seconds, points in time are Unix seconds, both as doubles. Infinity means
 *             never. Durations run on the monotonic clock; a deadline given as a point in time is turned
 *             into a duration once, when the context is made.
 * Errors.     A constructor that fails returns NULL and sets errno: EINVAL for a NULL parent, key, function or
 *             methods, for NaN, for a merge of nothing, for entries whose `reserved` is not zero; ENOMEM when
 *             memory is out. What you passed is then still yours. Ending a context allocates nothing and cannot
 *             fail.
 * Copies.     One core in a process. The Lua module carries its own: a host or C module that works with Lua does not
 *             link liblcontext, but includes lcontext_lua.h, which finds the functions of that module.
 * fork.       In the child, contexts keep their state and deadlines work. References that belong to threads
 *             which are not there are never given back.
 */
#ifndef LCONTEXT_H
#define LCONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LCTX_VERSION "0.1.0"

#if !defined(LCTX_API) && defined(__GNUC__)
#define LCTX_API __attribute__((visibility("default")))
#elif !defined(LCTX_API)
#define LCTX_API
#endif

typedef struct lctx lctx;

/* What lctx_err answers. LCTX_LIVE is zero, so that `if (lctx_err(ctx))` reads "if it has ended". */
typedef enum lctx_err_t { LCTX_LIVE, LCTX_CANCELED, LCTX_DEADLINE_EXCEEDED } lctx_err_t;

/* ---- Values ------------------------------------------------------------------------------------------
 * A tagged value: what a context carries under a key, and why it ended. A context keeps a copy: strings are
 * copied; a pointer is kept as it is, and `drop`, if not NULL, is called with it once when the context is
 * freed (in whichever thread that happens), or at once if it turns out that it will not be used. What you read out of a
 * context is a view: it lives as long as you hold that context. */
typedef enum lctx_type {
    LCTX_NIL,
    LCTX_BOOLEAN,
    LCTX_INTEGER,
    LCTX_NUMBER,
    LCTX_STRING,
    LCTX_POINTER, /* a light userdata in Lua */
    LCTX_OBJECT   /* a value that belongs to one Lua state, opaque elsewhere */
} lctx_type;

typedef struct lctx_any {
    uint8_t type;     /* an lctx_type */
    uint8_t reserved; /* zero in what you pass */
    uint16_t subtype; /* LCTX_OBJECT: the Lua type */
    union {
        bool boolean;
        int64_t integer;
        double number;
        const char *string; /* not necessarily terminated */
        void *pointer;
    } as;
    union {
        size_t length;        /* LCTX_STRING */
        void (*drop)(void *); /* LCTX_POINTER; may be NULL */
        const void *owner;    /* LCTX_OBJECT */
    } of;
} lctx_any;

/* A key is an address and nothing else: `static char user_key;` and `&user_key` is a key that no other
 * module can have. Names are up to you; equality is `==`. */
typedef struct lctx_entry {
    const void *key;
    lctx_any value;
} lctx_entry;

/* ---- Roots and references ----------------------------------------------------------------------------- */

/* The roots: they never end, carry nothing and need no reference counting (lctx_ref and lctx_unref leave
 * them alone). `todo` says "I have not decided yet whose context this should be". */
LCTX_API lctx *lctx_background(void);
LCTX_API lctx *lctx_todo(void);

/* One more reference to ctx; returns ctx. */
LCTX_API lctx *lctx_ref(lctx *ctx);

/* Gives a reference back. With the last one a live context ends with LCTX_CANCELED (its callbacks run, in
 * this thread, before lctx_unref returns; they cannot take a reference to it any more), leaves its parent, and
 * is freed. NULL is ignored. */
LCTX_API void lctx_unref(lctx *ctx);

/* ---- Deriving ----------------------------------------------------------------------------------------- */

/* A context that ends when lctx_cancel is called on it or when `parent` ends. Under a parent that has ended
 * it is born ended, with the parent's error and cause: that holds for every constructor below. */
LCTX_API lctx *lctx_with_cancel(lctx *parent);

/* As lctx_with_cancel, and ends with LCTX_DEADLINE_EXCEEDED at `unix_time`, with a copy of *cause as its
 * cause (NULL: none). A parent's deadline that is sooner or equal wins: the context then has no deadline of
 * its own, and `cause` is never used. A time that is past makes a context that is born ended. */
LCTX_API lctx *lctx_with_deadline(lctx *parent, double unix_time, const lctx_any *cause);

/* As lctx_with_deadline, `seconds` from now. */
LCTX_API lctx *lctx_with_timeout(lctx *parent, double seconds, const lctx_any *cause);

/* A context in which `key` has the value `value`. The nearest value wins, a nil too. It is not an end of
 * its own: it ends exactly when `parent` does, and lctx_cancel on it does nothing. */
LCTX_API lctx *lctx_with_value(lctx *parent, const void *key, lctx_any value);

/* As lctx_with_value for n keys in one layer. Of equal keys the last one counts. */
LCTX_API lctx *lctx_with_values(lctx *parent, size_t n, const lctx_entry *entries);

/* As lctx_with_value, under what is the string `name` in Lua: ctx:value(name) reads it there. Such keys are the same
 * for everybody: a name that others may use, too, is better kept apart with a prefix. */
LCTX_API lctx *lctx_with_named_value(lctx *parent, const char *name, lctx_any value);

/* A context that has the parent's values and nothing else of it: no deadline, no end. */
LCTX_API lctx *lctx_without_cancel(lctx *parent);

/* A context that ends as soon as one of its n parents (n >= 1) ends, with that one's error and cause; of
 * several that had ended before, the first in order. Its deadline is the soonest of theirs. Values are
 * looked up from left to right. */
LCTX_API lctx *lctx_merge(size_t n, lctx *const *parents);

/* A scope like any other, but that its deadline and values are answered by you, and which ends with `source` (NULL:
 * never). `methods` and `self` must live until `drop(self)` is called. The methods may be called from any thread.
 *   deadline  writes the deadline and returns true, or returns false for none
 *   value     writes the value and returns true, or returns false: no value here and nowhere above
 * Each may be NULL: no deadline, no values, nothing to drop. */
typedef struct lctx_methods {
    bool (*deadline)(void *self, double *unix_time);
    bool (*value)(void *self, const void *key, lctx_any *value);
    void (*drop)(void *self);
} lctx_methods;
LCTX_API lctx *lctx_custom(lctx *source, const lctx_methods *methods, void *self);

/* ---- Ending ------------------------------------------------------------------------------------------- */

/* Ends ctx and everything below it with LCTX_CANCELED; a root, a lctx_with_value and a lctx_without_cancel cannot
 * be ended, and nothing happens. The first end wins: on a context that has ended this does nothing. In any case
 * everything below has ended when it returns; if another thread is still at that, it waits for that thread. Parents end
 * before children, children in the order of their creation. Callbacks run after that, in the order in which their
 * contexts ended, before it returns to the caller that won. */
LCTX_API void lctx_cancel(lctx *ctx);

/* As lctx_cancel, with a copy of *cause as the cause (any but a nil, or NULL for none). Returns 0, or ENOMEM
 * when the copy could not be made: the context is ended all the same, without the cause. */
LCTX_API int lctx_cancel_cause(lctx *ctx, const lctx_any *cause);

/* ---- Asking ------------------------------------------------------------------------------------------- */

/* LCTX_LIVE, or how ctx ended. One atomic load. After lctx_deadline or lctx_remaining was asked, it also
 * looks at the clock, so that a deadline that you have seen pass is never still live. */
LCTX_API lctx_err_t lctx_err(lctx *ctx);

/* Whether ctx can ever end. */
LCTX_API bool lctx_can_end(const lctx *ctx);

/* Writes the effective deadline and returns true; false if there is none. It stays after the end. */
LCTX_API bool lctx_deadline(lctx *ctx, double *unix_time);

/* Seconds until the deadline: 0 when it is past (the context has then ended, but for a custom one, which sees to
 * its own end), infinity without one. */
LCTX_API double lctx_remaining(lctx *ctx);

/* Why ctx ended: writes the cause it ended with and returns true; false while it is live or if it ended
 * without one (then lctx_err says all there is). */
LCTX_API bool lctx_cause(lctx *ctx, lctx_any *cause);

/* Why ctx ended, in words: the cause as Lua's tostring shows it (of an object of a Lua state only if that state has
 * shared a context, or was handed one by a C program), else lctx_strerror; nothing while it is live. Writes as
 * snprintf does: at most size - 1 bytes and a zero; returns the length of the whole. */
LCTX_API size_t lctx_cause_text(lctx *ctx, char *buffer, size_t size);

/* The value of `key`: writes it and returns true if a layer holds the key (perhaps with a nil). */
LCTX_API bool lctx_value(lctx *ctx, const void *key, lctx_any *value);

/* The same for what is the string `name` in Lua. */
LCTX_API bool lctx_named_value(lctx *ctx, const char *name, lctx_any *value);

/* "context canceled", "context deadline exceeded"; "" for LCTX_LIVE. */
LCTX_API const char *lctx_strerror(lctx_err_t err);

/* Unix seconds, and seconds on the monotonic clock that timeouts use. */
LCTX_API double lctx_now(void);
LCTX_API double lctx_monotonic(void);

/* ---- Waiting ------------------------------------------------------------------------------------------ */

/* Blocks this thread until ctx has ended (true) or `seconds` have passed (false). Infinity waits for ever,
 * NaN and negative numbers do not wait. */
LCTX_API bool lctx_wait(lctx *ctx, double seconds);

/* A file descriptor that becomes readable when ctx ends and stays so, for poll, epoll and every event loop.
 * Do not read from it. NULL with errno when no descriptor (EMFILE, ENFILE) or memory is to be had. Holds a
 * reference to ctx; lctx_notifier_free closes the descriptor and gives the reference back. Not for two
 * threads at once. */
typedef struct lctx_notifier lctx_notifier;
LCTX_API lctx_notifier *lctx_notifier_new(lctx *ctx);
LCTX_API int lctx_notifier_fd(const lctx_notifier *notifier);
LCTX_API void lctx_notifier_free(lctx_notifier *notifier);

/* ---- Callbacks ---------------------------------------------------------------------------------------- */

/* Calls f(after, arg) once, after ctx has ended, in the thread that ended it, with no lock of the library held: f
 * may use every function here, but whoever called lctx_cancel waits for it. For a deadline that is the timer
 * thread, or a thread that has asked for the time and found it past (lctx_err, lctx_remaining, lctx_wait). If ctx
 * has ended already, f runs before lctx_after_func returns. While ctx can still end by itself (a deadline, an
 * ancestor that can end) the registration holds a reference to it, until it has run or was stopped.
 *
 * The handle is yours: lctx_after_free gives it back and leaves the registration in force. lctx_after_stop
 * returns true if it kept f from running; false if f has run, runs, or was stopped before. It does not wait
 * for f. NULL with errno ENOMEM or EINVAL. */
typedef struct lctx_after lctx_after;
typedef void lctx_callback(lctx_after *after, void *arg);
LCTX_API lctx_after *lctx_after_func(lctx *ctx, lctx_callback *f, void *arg);
LCTX_API bool lctx_after_stop(lctx_after *after);
LCTX_API void lctx_after_free(lctx_after *after);

/* ---- Looking inside ----------------------------------------------------------------------------------- */

/* How many there are in this process: contexts in memory (the two roots apart), those that have not ended,
 * armed timers, registered callbacks, waiters. A snapshot: other threads go on meanwhile. */
typedef struct lctx_stats {
    size_t contexts, live, timers, callbacks, waiters;
} lctx_stats;
LCTX_API void lctx_get_stats(lctx_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
