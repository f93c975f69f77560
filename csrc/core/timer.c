/* SPDX-License-Identifier: MIT
 *
 * A hierarchical timing wheel: 9 levels of 64 slots, ticks of 2^14 ns. A timer hangs at the level of the
 * highest digit (base 64) in which its tick differs from the cursor's, in the slot of that digit. So arming
 * and disarming are O(1), whatever else is armed; a timer that is not cancelled moves down at most eight
 * times. Bitmaps find the next slot in use.
 *
 * Locks. wheel.lock is a short lock (lock.h) and guards the wheel. keeper.mutex guards the thread's life and
 * its sleep; it is never taken under another lock.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "timer.h"

#include <pthread.h>
#include <signal.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "pin.h"
#include "tree.h"

enum { TICK_BITS = 14, DIGIT_BITS = 6, DIGITS = 1 << DIGIT_BITS, LEVELS = 9, NO_SLOT = -1, BATCH = 128, MOVES = 1024 };

typedef uint64_t tick;
#define NO_TICK UINT64_MAX

static struct {
    lctx_lock lock;
    tick cursor;    /* everything before it has been run */
    size_t count;   /* armed timers */
    lctx_ns wakeup; /* when the thread will look next, or was to look when it could not be started */
    int emptying;   /* the slot that is being moved down, or NO_SLOT */
    int sorted;     /* the slot that is being run, sorted by deadline, or NO_SLOT */
    uint64_t used[LEVELS];
    lctx_link *slots[LEVELS * DIGITS];
} wheel = {.wakeup = LCTX_NEVER, .emptying = NO_SLOT, .sorted = NO_SLOT};

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* made when the thread is started */
    bool running, nudged, leaving;
    pthread_t thread;
} keeper = {.mutex = PTHREAD_MUTEX_INITIALIZER};

_Atomic bool lctx__timers_unattended;

/* ---- The wheel: all under wheel.lock -------------------------------------------------------------------- */

static tick tick_of(lctx_ns when)
{
    if (when <= 0)
        return 0;
    return ((tick)when >> TICK_BITS) + (((tick)when & ((1 << TICK_BITS) - 1)) != 0);
}

static int digit(tick t, int level)
{
    return (int)(t >> (DIGIT_BITS * level) & (DIGITS - 1));
}

static void place(lctx_timer *timer)
{
    tick t = tick_of(timer->when);
    if (t < wheel.cursor)
        t = wheel.cursor;
    tick differ = t ^ wheel.cursor;
    int level = differ ? (63 - __builtin_clzll(differ)) / DIGIT_BITS : 0;
    timer->slot = (int16_t)(level * DIGITS + digit(t, level));
    wheel.used[level] |= UINT64_C(1) << digit(t, level);
    if (wheel.sorted == timer->slot)
        wheel.sorted = NO_SLOT;
    lctx__list_append(&wheel.slots[timer->slot], &timer->link);
}

static void remove_timer(lctx_timer *timer)
{
    int slot = timer->slot;
    lctx__list_remove(&wheel.slots[slot], &timer->link);
    timer->slot = NO_SLOT;
    if (wheel.slots[slot] == NULL) {
        wheel.used[slot / DIGITS] &= ~(UINT64_C(1) << slot % DIGITS);
        if (wheel.emptying == slot)
            wheel.emptying = NO_SLOT;
        if (wheel.sorted == slot)
            wheel.sorted = NO_SLOT;
    }
}

static lctx_timer *timer_of(lctx_link *link)
{
    return LCTX_CONTAINER(link, lctx_timer, link);
}

/* The first slot in use, and the tick at which it is to be run (level 0) or moved down. */
static tick next_slot(int *slot)
{
    if (wheel.emptying != NO_SLOT) {
        *slot = wheel.emptying;
        return wheel.cursor;
    }
    for (int level = 0; level < LEVELS; level++) {
        uint64_t ahead = wheel.used[level] & (~UINT64_C(0) << digit(wheel.cursor, level));
        if (ahead == 0)
            continue;
        int first = __builtin_ctzll(ahead), low = DIGIT_BITS * level;
        tick above = level + 1 < LEVELS ? wheel.cursor >> (low + DIGIT_BITS) << (low + DIGIT_BITS) : 0;
        *slot = level * DIGITS + first;
        return above | (tick)first << low;
    }
    return NO_TICK;
}

/* Moves one timer of an upper slot down; the cursor has come to that slot. */
static void move_down(int slot)
{
    lctx_timer *timer = timer_of(wheel.slots[slot]);
    remove_timer(timer);
    wheel.emptying = wheel.slots[slot] ? slot : NO_SLOT;
    place(timer);
}

static lctx_link *merge_sorted(lctx_link *a, lctx_link *b)
{
    lctx_link *first, **end = &first;
    while (a && b) {
        lctx_link **sooner = timer_of(b)->when < timer_of(a)->when ? &b : &a;
        *end = *sooner;
        end = &(*end)->next;
        *sooner = *end;
    }
    *end = a ? a : b;
    return first;
}

static bool is_sorted(const lctx_link *first)
{
    for (const lctx_link *link = first; link->next != first; link = link->next)
        if (timer_of(link->next)->when < timer_of((lctx_link *)link)->when)
            return false;
    return true;
}

/* A tick is short, but within it the sooner deadline must win. Merge sort: bins[i] has 2^i links or none. */
static void sort_slot(int slot)
{
    lctx_link *bins[64] = {NULL}, *first = wheel.slots[slot], *rest = first;
    wheel.sorted = slot;
    if (is_sorted(first))
        return;
    first->prev->next = NULL;
    while (rest) {
        lctx_link *run = rest;
        rest = rest->next;
        run->next = NULL;
        int i = 0;
        for (; bins[i]; bins[i++] = NULL)
            run = merge_sorted(bins[i], run);
        bins[i] = run;
    }
    lctx_link *all = NULL, *next;
    for (int i = 0; i < 64; i++)
        all = merge_sorted(bins[i], all);
    wheel.slots[slot] = NULL;
    for (; all; all = next) {
        next = all->next;
        lctx__list_append(&wheel.slots[slot], all);
    }
}

/* References to the scopes of a slot. They stay in the wheel until they have ended: if this thread is cut off
 * by a fork, the child finds them there. */
static int collect_slot(int slot, lctx_deadline_scope **due)
{
    int count = 0;
    if (wheel.sorted != slot)
        sort_slot(slot);
    for (lctx_link *link = wheel.slots[slot], *next; link && count < BATCH; link = next) {
        next = link->next == wheel.slots[slot] ? NULL : link->next;
        lctx_deadline_scope *scope = LCTX_CONTAINER(timer_of(link), lctx_deadline_scope, timer);
        if (lctx__try_ref(&scope->scope.ctx.head)) {
            due[count++] = scope;
        } else {
            remove_timer(&scope->timer);
            wheel.count--;
        }
    }
    return count;
}

/* Collects timers that are due. When it returns 0, *next is the tick of what comes next: `now` if there is
 * more to be moved down. */
static int collect_due(tick now, lctx_deadline_scope **due, tick *next)
{
    for (int moves = 0, slot; moves < MOVES; moves++) {
        *next = next_slot(&slot);
        if (*next > now) {
            if (now > wheel.cursor)
                wheel.cursor = now;
            return 0;
        }
        if (*next > wheel.cursor)
            wheel.cursor = *next;
        if (slot >= DIGITS) {
            move_down(slot);
            continue;
        }
        int count = collect_slot(slot, due);
        if (count > 0)
            return count;
    }
    *next = now;
    return 0;
}

static lctx_ns time_of(tick t)
{
    return t >= (tick)LCTX_NEVER >> TICK_BITS ? LCTX_NEVER : (lctx_ns)(t << TICK_BITS);
}

/* ---- Running ---------------------------------------------------------------------------------------------- */

void lctx__timer_expire(lctx_deadline_scope *scope)
{
    lctx__end(&scope->scope, LCTX_DEADLINE_EXCEEDED, scope->on_expiry);
}

lctx_ns lctx__timers_run(void)
{
    lctx_deadline_scope *due[BATCH];
    for (;;) {
        lctx_ns clock = lctx__monotonic();
        tick now = clock > 0 ? (tick)clock >> TICK_BITS : 0, next;
        lctx__lock(&wheel.lock);
        int count = collect_due(now, due, &next);
        if (count == 0 && next > now)
            wheel.wakeup = time_of(next);
        lctx__unlock(&wheel.lock);
        if (count == 0 && next > now)
            return time_of(next);
        for (int i = 0; i < count; i++) {
            lctx__timer_expire(due[i]);
            lctx__timer_disarm(due[i]); /* also if a thread that a fork cut off had ended it */
            lctx_unref(&due[i]->scope.ctx);
        }
    }
}

/* ---- The thread ------------------------------------------------------------------------------------------- */

static void *keep(void *unused)
{
    (void)unused;
#ifdef __linux__
    prctl(PR_SET_NAME, "lcontext");
    prctl(PR_SET_TIMERSLACK, 1000ul); /* the default may add 50 us to every wake-up */
#endif
    for (;;) {
        lctx_ns next = lctx__timers_run();
        struct timespec time = lctx__timespec(next);
        pthread_mutex_lock(&keeper.mutex);
        while (!keeper.nudged && !keeper.leaving && lctx__monotonic() < next) {
            if (next == LCTX_NEVER)
                pthread_cond_wait(&keeper.changed, &keeper.mutex);
            else
                pthread_cond_timedwait(&keeper.changed, &keeper.mutex, &time);
        }
        bool leave = keeper.leaving;
        keeper.nudged = false;
        pthread_mutex_unlock(&keeper.mutex);
        if (leave)
            return NULL;
    }
}

/* Under keeper.mutex. The thread takes no signals: they are the host's. */
static bool start_thread(void)
{
    sigset_t all, before;
    lctx__pin_library();
    lctx__cond_init(&keeper.changed);
    keeper.nudged = keeper.leaving = false;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    keeper.running = pthread_create(&keeper.thread, NULL, keep, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return keeper.running;
}

/* Makes sure that the thread looks at the wheel soon, or that everybody knows that nobody does. */
static void nudge(void)
{
    pthread_mutex_lock(&keeper.mutex);
    if (keeper.running || start_thread()) {
        keeper.nudged = true;
        pthread_cond_signal(&keeper.changed);
        atomic_store_explicit(&lctx__timers_unattended, false, memory_order_relaxed);
    } else {
        atomic_store_explicit(&lctx__timers_unattended, true, memory_order_relaxed);
    }
    pthread_mutex_unlock(&keeper.mutex);
}

void lctx__timer_arm(lctx_deadline_scope *scope, lctx_ns now)
{
    lctx__lock(&wheel.lock);
    /* The other half of the agreement is in end_one: it sets the state first and disarms then. */
    bool live = lctx__state(&scope->scope) == LCTX_LIVE, sooner = false;
    if (live) {
        if (wheel.count++ == 0 && now > 0 && (tick)now >> TICK_BITS > wheel.cursor)
            wheel.cursor = (tick)now >> TICK_BITS;
        place(&scope->timer);
        sooner =
            scope->timer.when < wheel.wakeup || atomic_load_explicit(&lctx__timers_unattended, memory_order_relaxed);
        if (sooner)
            wheel.wakeup = scope->timer.when;
    }
    lctx__unlock(&wheel.lock);
    if (sooner)
        nudge();
}

void lctx__timer_disarm(lctx_deadline_scope *scope)
{
    lctx__lock(&wheel.lock);
    if (scope->timer.slot != NO_SLOT) {
        remove_timer(&scope->timer);
        wheel.count--;
    }
    lctx__unlock(&wheel.lock);
}

lctx_ns lctx__timers_attend(lctx_ns until)
{
    if (!atomic_load_explicit(&lctx__timers_unattended, memory_order_relaxed))
        return until;
    nudge(); /* perhaps there are threads again */
    if (!atomic_load_explicit(&lctx__timers_unattended, memory_order_relaxed))
        return until;
    lctx_ns next = lctx__timers_run();
    return next < until ? next : until;
}

size_t lctx__timer_count(void)
{
    lctx__lock(&wheel.lock);
    size_t count = wheel.count;
    lctx__unlock(&wheel.lock);
    return count;
}

void lctx__timers_rest(void)
{
    pthread_mutex_lock(&keeper.mutex);
    bool leave = keeper.running && !keeper.leaving && lctx__timer_count() == 0;
    if (leave) {
        keeper.leaving = true;
        pthread_cond_signal(&keeper.changed);
    }
    pthread_t thread = keeper.thread;
    pthread_mutex_unlock(&keeper.mutex);
    if (!leave)
        return;
    pthread_join(thread, NULL);
    pthread_mutex_lock(&keeper.mutex);
    keeper.running = keeper.leaving = false;
    pthread_cond_destroy(&keeper.changed);
    lctx__lock(&wheel.lock);
    wheel.wakeup = LCTX_NEVER;
    bool armed = wheel.count > 0;
    lctx__unlock(&wheel.lock);
    pthread_mutex_unlock(&keeper.mutex);
    if (armed)
        nudge(); /* somebody armed one while the thread was leaving */
}

void lctx__timers_before_fork(void)
{
    pthread_mutex_lock(&keeper.mutex);
    lctx__lock(&wheel.lock);
}

/* In the child the thread is gone; it is started again by the next nudge, and until then everybody looks at
 * the clock. */
void lctx__timers_after_fork(bool child)
{
    if (child) {
        keeper.running = keeper.nudged = keeper.leaving = false;
        wheel.wakeup = LCTX_NEVER;
        if (wheel.count > 0)
            atomic_store_explicit(&lctx__timers_unattended, true, memory_order_relaxed);
    }
    lctx__unlock(&wheel.lock);
    pthread_mutex_unlock(&keeper.mutex);
}
