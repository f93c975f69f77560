/* SPDX-License-Identifier: MIT
 *
 * A hierarchical timing wheel: 9 levels of 64 slots, ticks of 2^14 ns. A timer hangs at the level of the
 * highest digit (base 64) in which its tick differs from the cursor's, in the slot of that digit. So arming
 * and disarming are O(1), whatever else is armed; a timer that is not cancelled moves down at most eight
 * times. Bitmaps find the next slot in use.
 *
 * Within a tick, too, the sooner deadline must win. The timers of a tick that is due are put in order by three fine
 * levels, of the three digits of the nanosecond within the tick: one timer at a time, so that nobody waits long for
 * the lock, however many are due at once.
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

enum { TICK_BITS = 14, DIGIT_BITS = 6, DIGITS = 1 << DIGIT_BITS, LEVELS = 9, FINE_LEVELS = 3, NO_SLOT = -1 };

/* The most that is done under one hold of the lock. */
enum { BATCH = 128, MOVES = 256 };

typedef uint64_t tick;
#define NO_TICK UINT64_MAX

static struct {
    _Alignas(64) lctx_lock lock; /* what every section uses is in one cache line */
    tick cursor;                 /* everything before it has been run */
    size_t count;                /* armed timers */
    lctx_ns wakeup;              /* when the thread will look next, or was to look when it could not be started */
    int emptying;                /* the slot that is being moved down, or NO_SLOT */
    uint64_t used[LEVELS + FINE_LEVELS];
    lctx_link *slots[(LEVELS + FINE_LEVELS) * DIGITS]; /* of the level LEVELS, the coarsest of the fine ones, and on */
} wheel = {.wakeup = LCTX_NEVER, .emptying = NO_SLOT};

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

static lctx_deadline_scope *deadline_of(lctx_link *link)
{
    return LCTX_CONTAINER(link, lctx_deadline_scope, timer);
}

static void put_into(lctx_deadline_scope *deadline, int level, int digit)
{
    deadline->scope.slot = (int16_t)(level * DIGITS + digit);
    if (wheel.slots[deadline->scope.slot] == NULL)
        wheel.used[level] |= UINT64_C(1) << digit;
    lctx__list_append(&wheel.slots[deadline->scope.slot], &deadline->timer);
}

static void place(lctx_deadline_scope *deadline)
{
    tick t = tick_of(deadline->when);
    if (t < wheel.cursor)
        t = wheel.cursor;
    tick differ = t ^ wheel.cursor;
    int level = differ ? (63 - __builtin_clzll(differ)) / DIGIT_BITS : 0;
    put_into(deadline, level, digit(t, level));
}

/* Of a timer of the tick that the cursor is at. */
static void place_finely(lctx_deadline_scope *deadline, int level)
{
    static const int shifts[FINE_LEVELS] = {8, 2, 0};
    lctx_ns first = (lctx_ns)((wheel.cursor << TICK_BITS) - (1 << TICK_BITS)) + 1;
    lctx_ns within = deadline->when > first ? deadline->when - first : 0;
    put_into(deadline, level, (int)(within >> shifts[level - LEVELS] & (DIGITS - 1)));
}

static void remove_timer(lctx_deadline_scope *deadline)
{
    int slot = deadline->scope.slot;
    lctx__list_remove(&wheel.slots[slot], &deadline->timer);
    deadline->scope.slot = NO_SLOT;
    if (wheel.slots[slot] == NULL) {
        wheel.used[slot / DIGITS] &= ~(UINT64_C(1) << slot % DIGITS);
        if (wheel.emptying == slot)
            wheel.emptying = NO_SLOT;
    }
}

/* The first slot in use, and the tick at which it is to be run or moved down. */
static tick next_slot(int *slot)
{
    if (wheel.emptying != NO_SLOT) {
        *slot = wheel.emptying;
        return wheel.cursor;
    }
    for (int level = LEVELS + FINE_LEVELS; level-- > LEVELS;)
        if (wheel.used[level]) {
            *slot = level * DIGITS + __builtin_ctzll(wheel.used[level]);
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

/* The level that the timers of a slot move down to once the cursor has come to it; -1: they are run. A timer that is
 * alone in its tick, or in its part of it, needs no order. */
static int level_below(int slot)
{
    int level = slot / DIGITS;
    if (level > 0 && level < LEVELS)
        return level - 1;
    bool is_alone = wheel.slots[slot]->next == wheel.slots[slot] && wheel.emptying == NO_SLOT;
    if (is_alone || level == LEVELS + FINE_LEVELS - 1)
        return -1;
    return level == 0 ? LEVELS : level + 1;
}

/* Moves one timer of a slot down; the cursor has come to that slot. */
static void move_down(int slot, int level)
{
    lctx_deadline_scope *deadline = deadline_of(wheel.slots[slot]);
    remove_timer(deadline);
    wheel.emptying = wheel.slots[slot] ? slot : NO_SLOT;
    if (level < LEVELS)
        place(deadline);
    else
        place_finely(deadline, level);
}

/* References to the scopes of a slot. They stay in the wheel until they have ended: if this thread is cut off
 * by a fork, the child finds them there. */
static int collect_slot(int slot, lctx_deadline_scope **due)
{
    int count = 0;
    for (lctx_link *link = wheel.slots[slot], *next; link && count < BATCH; link = next) {
        next = link->next == wheel.slots[slot] ? NULL : link->next;
        lctx_deadline_scope *deadline = deadline_of(link);
        if (lctx__refs_try(&deadline->scope.ctx.head.refs)) {
            due[count++] = deadline;
        } else {
            remove_timer(deadline);
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
        int below = level_below(slot);
        if (below >= 0) {
            move_down(slot, below);
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

void lctx__timer_expire(lctx_deadline_scope *deadline)
{
    lctx__end(&deadline->scope, LCTX_DEADLINE_EXCEEDED, lctx__cause_of(deadline));
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

void lctx__timer_arm(lctx_deadline_scope *deadline, lctx_ns now)
{
    lctx__lock(&wheel.lock);
    /* The other half of the agreement is in end_one: it sets the state first and disarms then. */
    bool live = lctx__state(&deadline->scope) == LCTX_LIVE, sooner = false;
    if (live) {
        if (wheel.count++ == 0 && now > 0 && (tick)now >> TICK_BITS > wheel.cursor)
            wheel.cursor = (tick)now >> TICK_BITS;
        place(deadline);
        sooner = deadline->when < wheel.wakeup || atomic_load_explicit(&lctx__timers_unattended, memory_order_relaxed);
        if (sooner)
            wheel.wakeup = deadline->when;
    }
    lctx__unlock(&wheel.lock);
    if (sooner)
        nudge();
}

void lctx__timer_disarm(lctx_deadline_scope *deadline)
{
    lctx__lock(&wheel.lock);
    if (deadline->scope.slot != NO_SLOT) {
        remove_timer(deadline);
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
