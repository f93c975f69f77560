/* SPDX-License-Identifier: MIT
 *
 * Many threads on one tree. LCONTEXT_SEED sets the seed of the random schedules; it is printed.
 */
#include <math.h>
#include <poll.h>

#include "../../csrc/core/key.h"
#include "../../csrc/core/mailbox.h"
#include "../../csrc/core/timer.h"
#include "threads.h"
#include "values.h"

static char user_key;

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, timeout_ms) == 1 && (poll_fd.revents & POLLIN);
}

/* An atomic counter that a callback adds to. */
static void count_call(lctx_after *after, void *counter)
{
    (void)after;
    atomic_fetch_add((atomic_int *)counter, 1);
}

static void wait_for_count(atomic_int *counter, int value)
{
    while (atomic_load(counter) < value)
        sched_yield();
}

static void wait_for_waiters(size_t count)
{
    while (stats_now().waiters < count)
        sched_yield();
}

static uint64_t first_seed(void)
{
    const char *given = getenv("LCONTEXT_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    fprintf(stderr, "%s: LCONTEXT_SEED=%llu\n", check_running, (unsigned long long)seed);
    return seed;
}

/* ---- Cancels against each other -------------------------------------------------------------------------- */

enum { TREE = 1 + 4 + 16 + 64 + 256 };

typedef struct tree {
    lctx *ctx[TREE];
    int order[TREE];
} tree;

static void cancel_share(member *m)
{
    tree *t = m->shared;
    meet(m);
    for (int i = m->index; i < TREE; i += m->size) {
        int chosen = t->order[i];
        lctx_cancel(t->ctx[chosen]);
        for (int child = 4 * chosen + 1; child <= 4 * chosen + 4 && child < TREE; child++)
            CHECK(lctx_err(t->ctx[child]) != LCTX_LIVE);
    }
}

TEST(simultaneous_cancels_all_over_a_tree_return)
{
    static tree t;
    uint64_t seed = first_seed();
    for (int round = 0; round < SCALED(50); round++) {
        for (int i = 0; i < TREE; i++) {
            lctx *parent = i ? t.ctx[(i - 1) / 4] : lctx_background();
            t.ctx[i] = i % 5 == 4 ? lctx_with_timeout(parent, 3600 - i, NULL) : lctx_with_cancel(parent);
            int at = (int)(check_random(&seed) % (uint64_t)(i + 1));
            t.order[i] = t.order[at];
            t.order[at] = i;
        }
        in_threads(16, cancel_share, &t);
        for (int i = 0; i < TREE; i++)
            CHECK(lctx_err(t.ctx[i]) == LCTX_CANCELED && lctx_wait(t.ctx[i], INFINITY));
        unref_all(t.ctx, TREE);
    }
}

typedef struct pair {
    lctx *parent, *child;
} pair;

static void cancel_interlocked(member *m)
{
    pair *p = m->shared;
    for (int round = 0; round < SCALED(2000); round++) {
        if (m->index == 0) {
            p->parent = lctx_with_cancel(lctx_background());
            p->child = lctx_with_cancel(p->parent);
        }
        meet(m);
        if (m->index == 0) {
            lctx_cancel(p->parent);
        } else {
            CHECK(lctx_wait(p->parent, INFINITY)); /* ended, but the walk may still be on its way */
            lctx_cancel(p->child);
        }
        CHECK(lctx_err(p->child) == LCTX_CANCELED);
        meet(m);
        if (m->index == 0) {
            lctx_unref(p->child);
            lctx_unref(p->parent);
        }
    }
}

TEST(interlocked_cancels_return)
{
    pair p;
    in_threads(2, cancel_interlocked, &p);
}

static void derive_under_cancel(member *m)
{
    lctx **parent = m->shared;
    for (int round = 0; round < SCALED(3000); round++) {
        if (m->index == 0)
            *parent = lctx_with_cancel(lctx_background());
        meet(m);
        if (m->index == 0) {
            cancel_with(*parent, "why");
        } else {
            lctx *child = m->index == 1   ? lctx_with_cancel(*parent)
                          : m->index == 2 ? lctx_with_timeout(*parent, 3600, NULL)
                                          : lctx_merge(2, (lctx *[]){lctx_todo(), *parent});
            CHECK(lctx_wait(child, INFINITY) && ended_as(child, LCTX_CANCELED, "why"));
            lctx_unref(child);
        }
        meet(m);
        if (m->index == 0)
            lctx_unref(*parent);
    }
}

TEST(a_child_made_while_its_parent_ends_is_never_lost)
{
    lctx *parent;
    in_threads(4, derive_under_cancel, &parent);
}

enum { LEAVES = 3000 };

typedef struct bush {
    lctx *top, *middle, *leaves[LEAVES];
} bush;

static void cancel_bush(member *m)
{
    bush *b = m->shared;
    meet(m);
    lctx_cancel(m->index == 1 ? b->middle : b->top);
    for (int i = 0; i < LEAVES; i++)
        CHECK(lctx_err(b->leaves[i]) == LCTX_CANCELED);
}

TEST(every_canceler_returns_when_everything_below_has_ended)
{
    static bush b;
    for (int round = 0; round < SCALED(50); round++) {
        b.top = lctx_with_cancel(lctx_background());
        b.middle = lctx_with_cancel(b.top);
        for (int i = 0; i < LEAVES; i++)
            b.leaves[i] = lctx_with_cancel(i % 3 && i > 2 ? b.leaves[i - 3] : b.middle);
        in_threads(3, cancel_bush, &b);
        unref_all(b.leaves, LEAVES);
        lctx_unref(b.middle);
        lctx_unref(b.top);
    }
}

/* A walk from the top comes upon `busy`, whose walk is under way, and later that one upon `low`, whose walk began
 * last. The one from the top must wait for both. */
enum { BUSY_LEAVES = SCALED(20000), LOW_LEAVES = SCALED(60000) };

typedef struct stairs {
    lctx *top, *busy, *busy_leaves[BUSY_LEAVES], *low, *low_leaves[LOW_LEAVES];
} stairs;

static void make_stairs(stairs *s)
{
    s->top = lctx_with_cancel(lctx_background());
    s->busy = lctx_with_cancel(s->top);
    for (int i = 0; i < BUSY_LEAVES; i++)
        s->busy_leaves[i] = lctx_with_cancel(s->busy);
    s->low = lctx_with_cancel(s->busy);
    for (int i = 0; i < LOW_LEAVES; i++)
        s->low_leaves[i] = lctx_with_cancel(s->low);
}

static void free_stairs(stairs *s)
{
    unref_all(s->low_leaves, LOW_LEAVES);
    unref_all(s->busy_leaves, BUSY_LEAVES);
    lctx *rest[] = {s->low, s->busy, s->top};
    unref_all(rest, 3);
}

static void wait_for_end(lctx *ctx)
{
    while (lctx_err(ctx) == LCTX_LIVE)
        sched_yield();
}

static void cancel_a_step(member *m)
{
    stairs *s = m->shared;
    if (m->index == 0) {
        lctx_cancel(s->busy);
    } else if (m->index == 1) {
        wait_for_end(s->busy);
        lctx_cancel(s->top);
    } else {
        wait_for_end(s->busy_leaves[BUSY_LEAVES / 2]);
        lctx_cancel(s->low);
    }
    CHECK(lctx_err(s->low_leaves[LOW_LEAVES - 1]) == LCTX_CANCELED);
}

TEST(a_canceler_waits_for_walks_that_began_below_after_its_own)
{
    static stairs s;
    for (int round = 0; round < 20; round++) {
        make_stairs(&s);
        in_threads(3, cancel_a_step, &s);
        free_stairs(&s);
    }
}

typedef struct walk_and_drop {
    lctx *top, *children[64];
    atomic_int calls;
} walk_and_drop;

static void drop_under_walk(member *m)
{
    walk_and_drop *w = m->shared;
    for (int round = 0; round < SCALED(2000); round++) {
        if (m->index == 0) {
            w->top = lctx_with_cancel(lctx_background());
            for (int i = 0; i < 64; i++) {
                w->children[i] = lctx_with_timeout(i % 4 ? w->children[i - 1] : w->top, 3600 - i % 4, NULL);
                if (i % 4 == 3)
                    lctx_after_free(lctx_after_func(w->children[i], count_call, &w->calls));
            }
        }
        meet(m);
        if (m->index == 0)
            lctx_cancel(w->top);
        else
            for (int i = 64; i-- > 0;)
                if (i % (m->size - 1) == m->index - 1)
                    lctx_unref(w->children[i]);
        meet(m);
        if (m->index == 0)
            lctx_unref(w->top);
    }
}

TEST(last_references_go_while_a_walk_comes_from_above)
{
    walk_and_drop w = {.calls = 0};
    in_threads(3, drop_under_walk, &w);
    wait_for_count(&w.calls, SCALED(2000) * 16);
    CHECK(atomic_load(&w.calls) == SCALED(2000) * 16);
}

static void derive_and_drop(member *m)
{
    lctx **shared = m->shared;
    lctx *mine[32] = {NULL};
    uint64_t seed = (uint64_t)m->index;
    for (int step = 0; step < SCALED(20000); step++) {
        int at = (int)(check_random(&seed) % 32);
        lctx *parent = mine[check_random(&seed) % 32], *made;
        if (parent == NULL)
            parent = shared[check_random(&seed) % 4];
        made = step % 3 == 0   ? lctx_with_value(parent, &user_key, of_string("x"))
               : step % 3 == 1 ? lctx_with_cancel(parent)
                               : lctx_without_cancel(parent);
        lctx_unref(mine[at]);
        mine[at] = step % 7 ? made : (lctx_unref(made), NULL);
        if (step == SCALED(10000) && m->index < 4)
            lctx_cancel(shared[m->index]);
    }
    unref_all(mine, 32);
}

TEST(threads_derive_from_shared_contexts_and_drop)
{
    lctx *shared[4];
    for (int i = 0; i < 4; i++)
        shared[i] = lctx_with_cancel(i ? shared[i - 1] : lctx_background());
    in_threads(4, derive_and_drop, shared);
    unref_all(shared, 4);
}

enum { IN_TURN = 40 };

static lctx *in_turn[IN_TURN];
static int end_order[IN_TURN], end_count;

/* All at once for a while, since nothing that makes that fast may cost the order; then one after the other. */
static void derive_in_turn(member *m)
{
    lctx *parent = m->shared;
    for (int i = 0; i < SCALED(50000); i++)
        lctx_unref(lctx_with_cancel(parent));
    for (int i = 0; i < IN_TURN; i++) {
        meet(m);
        if (i % m->size != m->size - 1 - m->index)
            continue;
        lctx *value = lctx_with_value(parent, &user_key, of_integer(i));
        in_turn[i] = i % 3 == 0   ? lctx_with_cancel(value)
                     : i % 3 == 1 ? lctx_with_cancel(parent)
                                  : lctx_with_timeout(parent, 3600, NULL);
        lctx_unref(value);
    }
}

static void note_end(lctx_after *after, void *child)
{
    (void)after;
    end_order[end_count++] = (int)((lctx **)child - in_turn);
}

TEST(children_of_threads_that_take_turns_end_in_the_order_of_their_creation)
{
    lctx *parent = lctx_with_cancel(lctx_background());
    in_threads(4, derive_in_turn, parent);
    for (int i = IN_TURN; i-- > 0;)
        lctx_after_free(lctx_after_func(in_turn[i], note_end, &in_turn[i]));
    end_count = 0;
    lctx_cancel(parent);
    CHECK(end_count == IN_TURN);
    for (int i = 0; i < IN_TURN; i++)
        CHECK(end_order[i] == i);
    unref_all(in_turn, IN_TURN);
    lctx_unref(parent);
}

/* ---- Err, cause, waiting --------------------------------------------------------------------------------- */

static void race_for_cause(member *m)
{
    lctx **ctx = m->shared;
    for (int round = 0; round < SCALED(3000); round++) {
        if (m->index == 0)
            *ctx = lctx_with_cancel(lctx_background());
        meet(m);
        if (m->index == 0) {
            cancel_with(*ctx, "the whole cause");
        } else {
            lctx_any cause;
            while (!lctx_cause(*ctx, &cause))
                sched_yield();
            CHECK(is_string(&cause, "the whole cause") && lctx_err(*ctx) == LCTX_CANCELED);
        }
        meet(m);
        if (m->index == 0)
            lctx_unref(*ctx);
    }
}

TEST(a_cause_is_seen_whole_or_not_at_all)
{
    lctx *ctx;
    in_threads(3, race_for_cause, &ctx);
}

static void race_err_and_done(member *m)
{
    lctx **ctx = m->shared;
    for (int round = 0; round < SCALED(2000); round++) {
        if (m->index == 0)
            *ctx = lctx_with_cancel(lctx_background());
        meet(m);
        if (m->index == 0) {
            cancel_with(*ctx, "why");
        } else {
            lctx_notifier *notifier = m->index == 1 ? lctx_notifier_new(*ctx) : NULL;
            while (lctx_err(*ctx) == LCTX_LIVE)
                sched_yield();
            CHECK(lctx_wait(*ctx, 0) && cause_is(*ctx, "why"));
            CHECK(!notifier || is_readable(lctx_notifier_fd(notifier), 60000));
            lctx_notifier_free(notifier);
        }
        meet(m);
        if (m->index == 0)
            lctx_unref(*ctx);
    }
}

TEST(who_sees_the_error_finds_cause_and_done)
{
    lctx *ctx;
    in_threads(3, race_err_and_done, &ctx);
}

static void race_ends(member *m)
{
    lctx **ctx = m->shared;
    const lctx_any cause = of_integer(m->index);
    for (int round = 0; round < SCALED(300); round++) {
        if (m->index == 0)
            *ctx = lctx_with_timeout(lctx_background(), 0.0005, &(lctx_any){.type = LCTX_BOOLEAN});
        meet(m);
        lctx_any first, again;
        if (m->index > 0) {
            while (lctx_monotonic() * 1e4 - floor(lctx_monotonic() * 1e4) < 0.5)
                continue; /* some win against the deadline, some do not */
            CHECK(lctx_cancel_cause(*ctx, &cause) == 0);
        }
        CHECK(lctx_wait(*ctx, INFINITY) && lctx_cause(*ctx, &first));
        lctx_err_t err = lctx_err(*ctx);
        CHECK((err == LCTX_DEADLINE_EXCEEDED) == (first.type == LCTX_BOOLEAN));
        meet(m);
        CHECK(lctx_cause(*ctx, &again) && again.as.integer == first.as.integer && lctx_err(*ctx) == err);
        meet(m);
        if (m->index == 0)
            lctx_unref(*ctx);
    }
}

TEST(of_cancels_and_a_deadline_the_first_wins_for_everybody)
{
    lctx *ctx;
    in_threads(3, race_ends, &ctx);
}

static void wait_or_cancel(member *m)
{
    pair *p = m->shared;
    if (m->index > 0) {
        CHECK(lctx_wait(m->index % 2 ? p->child : p->parent, m->index % 3 ? INFINITY : 3600));
        CHECK(lctx_err(p->child) == LCTX_CANCELED || m->index % 2 == 0);
        return;
    }
    wait_for_waiters((size_t)m->size - 1);
    lctx_cancel(p->parent);
}

TEST(a_cancel_wakes_everybody_who_waits)
{
    for (int round = 0; round < 20; round++) {
        pair p = {.parent = lctx_with_cancel(lctx_background())};
        p.child = lctx_with_value(p.parent, &user_key, of_integer(1));
        in_threads(8, wait_or_cancel, &p);
        lctx_unref(p.child);
        lctx_unref(p.parent);
    }
}

TEST(a_deadline_wakes_who_waits)
{
    for (int i = 0; i < 50; i++) {
        double start = lctx_monotonic();
        lctx *ctx = lctx_with_timeout(lctx_background(), 0.001, NULL), *child = lctx_with_cancel(ctx);
        CHECK(lctx_wait(child, INFINITY) && lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED);
        CHECK(lctx_monotonic() - start >= 0.001);
        lctx_unref(child);
        lctx_unref(ctx);
    }
}

TEST(a_wait_gives_up_when_its_time_is_up)
{
    lctx *ctx = lctx_with_cancel(lctx_background()), *contexts[] = {ctx, lctx_background()};
    for (int i = 0; i < 2; i++) {
        double start = lctx_monotonic();
        CHECK(!lctx_wait(contexts[i], 0.002) && lctx_monotonic() - start >= 0.002);
        CHECK(!lctx_wait(contexts[i], 0) && !lctx_wait(contexts[i], -INFINITY) && !lctx_wait(contexts[i], NAN));
    }
    lctx_unref(ctx);
}

TEST(the_timer_thread_goes_and_comes_back)
{
    for (int i = 0; i < 20; i++) {
        lctx *ctx = lctx_with_timeout(lctx_background(), 0.001, NULL);
        lctx__timers_rest(); /* armed: it stays */
        CHECK(lctx_wait(ctx, INFINITY));
        lctx_unref(ctx);
        while (stats_now().timers > 0)
            sched_yield();
        lctx__timers_rest();
    }
}

/* ---- Callbacks ------------------------------------------------------------------------------------------- */

typedef struct stop_race {
    lctx *ctx;
    lctx_after *after;
    atomic_int runs, stops;
} stop_race;

static void race_stop(member *m)
{
    stop_race *race = m->shared;
    for (int round = 0; round < SCALED(3000); round++) {
        if (m->index == 0) {
            race->ctx = lctx_with_cancel(lctx_background());
            atomic_store(&race->runs, 0);
            atomic_store(&race->stops, 0);
            race->after = lctx_after_func(race->ctx, count_call, &race->runs);
        }
        meet(m);
        if (m->index == 0)
            lctx_cancel(race->ctx);
        else if (lctx_after_stop(race->after))
            atomic_fetch_add(&race->stops, 1);
        meet(m); /* the canceler has run it, if it is to be run */
        if (m->index == 0) {
            CHECK(atomic_load(&race->runs) + atomic_load(&race->stops) == 1);
            lctx_after_free(race->after);
            lctx_unref(race->ctx);
        }
    }
}

TEST(a_callback_runs_or_is_stopped_never_both)
{
    stop_race race;
    in_threads(3, race_stop, &race);
}

typedef struct blocked {
    lctx *parent, *ctx, *sibling;
    lctx_after *later;
    atomic_int started, go_on;
} blocked;

static void block(lctx_after *after, void *arg)
{
    blocked *b = arg;
    (void)after;
    atomic_store(&b->started, 1);
    wait_for_count(&b->go_on, 1);
}

static void use_while_blocked(member *m)
{
    blocked *b = m->shared;
    if (m->index == 0) {
        lctx_cancel(b->parent);
        return;
    }
    atomic_int calls = 0;
    wait_for_count(&b->started, 1);
    CHECK(!lctx_after_stop(b->later));
    lctx_cancel(b->ctx); /* does not wait for the callback */
    lctx_cancel(b->parent);
    lctx *child = lctx_with_cancel(b->ctx);
    CHECK(ended_as(child, LCTX_CANCELED, NULL) && ended_as(b->sibling, LCTX_CANCELED, NULL));
    lctx_after_free(lctx_after_func(b->ctx, count_call, &calls));
    CHECK(atomic_load(&calls) == 1 && lctx_wait(b->sibling, INFINITY));
    lctx_unref(child);
    CHECK(stats_now().contexts == 3 && stats_now().live == 0);
    atomic_store(&b->go_on, 1);
}

TEST(no_lock_is_held_while_a_callback_runs)
{
    blocked b = {.parent = lctx_with_cancel(lctx_background())};
    b.ctx = lctx_with_cancel(b.parent);
    b.sibling = lctx_with_cancel(b.parent);
    lctx_after_free(lctx_after_func(b.ctx, block, &b));
    b.later = lctx_after_func(b.sibling, count_call, &b.started);
    in_threads(2, use_while_blocked, &b);
    CHECK(atomic_load(&b.started) == 2);
    lctx_after_free(b.later);
    lctx *all[] = {b.ctx, b.sibling, b.parent};
    unref_all(all, 3);
}

TEST(a_deadline_runs_callbacks_and_lets_go)
{
    atomic_int calls = 0;
    for (int i = 1; i <= 100; i++) {
        lctx *ctx = lctx_with_timeout(lctx_background(), 0.0005, NULL);
        lctx_after_free(lctx_after_func(ctx, count_call, &calls));
        lctx_unref(ctx); /* the registration holds it */
        wait_for_count(&calls, i);
    }
    CHECK(atomic_load(&calls) == 100);
}

/* ---- Notifiers, mailboxes, keys -------------------------------------------------------------------------- */

TEST(a_notifier_is_readable_from_the_end_on)
{
    lctx *ctx = lctx_with_cancel(lctx_background()), *timed = lctx_with_timeout(ctx, 0.001, NULL);
    lctx_notifier *early = lctx_notifier_new(ctx), *never = lctx_notifier_new(lctx_background());
    lctx_notifier *by_timer = lctx_notifier_new(timed), *freed = lctx_notifier_new(ctx);
    CHECK(stats_now().waiters >= 2 && !is_readable(lctx_notifier_fd(early), 0));
    CHECK(is_readable(lctx_notifier_fd(by_timer), 60000) && lctx_err(timed) == LCTX_DEADLINE_EXCEEDED);
    lctx_notifier_free(freed);
    lctx_cancel(ctx);
    lctx_notifier *late = lctx_notifier_new(ctx);
    for (int i = 0; i < 3; i++)
        CHECK(is_readable(lctx_notifier_fd(early), 0) && is_readable(lctx_notifier_fd(late), 0));
    CHECK(!is_readable(lctx_notifier_fd(never), 0));
    lctx_notifier *all[] = {early, never, by_timer, late, NULL};
    lctx_unref(timed);
    lctx_unref(ctx);
    for (int i = 0; i < 5; i++)
        lctx_notifier_free(all[i]);
}

static void race_notifier(member *m)
{
    lctx **ctx = m->shared;
    for (int round = 0; round < SCALED(2000); round++) {
        lctx_notifier *notifier = NULL;
        if (m->index == 0)
            *ctx = lctx_with_cancel(lctx_background());
        meet(m);
        if (m->index > 0)
            notifier = lctx_notifier_new(*ctx);
        meet(m);
        if (m->index == 0)
            lctx_cancel(*ctx);
        lctx_notifier_free(notifier);
        meet(m);
        if (m->index == 0)
            lctx_unref(*ctx);
    }
}

TEST(a_notifier_may_be_freed_while_it_is_rung)
{
    lctx *ctx;
    in_threads(3, race_notifier, &ctx);
}

enum { POSTERS = 3, POSTS = 2000 };

typedef struct post {
    lctx *ctx;
    lctx_after *note;
    atomic_int stopped;
    int taken; /* the owner's */
} post;

typedef struct post_office {
    lctx_mailbox *mailbox;
    post posts[POSTERS * POSTS];
    atomic_int left;
} post_office;

static void take_all(post_office *office)
{
    int fd = lctx__mailbox_fd(office->mailbox), seen = 0;
    CHECK(fd >= 0);
    while (seen < POSTERS * SCALED(POSTS)) {
        for (lctx_after *note; (note = lctx__mailbox_take(office->mailbox)); seen++) {
            office->posts[note->tag].taken++;
            lctx__after_unref(note);
        }
        if (atomic_load(&office->left) == 0 && !lctx__mailbox_is_due(office->mailbox))
            break; /* the rest was stopped */
        lctx__mailbox_wait(office->mailbox, lctx__monotonic() + 1000000);
    }
    CHECK(!is_readable(fd, 0));
}

static void post_some(member *m)
{
    post_office *office = m->shared;
    if (m->index == 0) {
        take_all(office);
        return;
    }
    post *posts = &office->posts[(m->index - 1) % POSTERS * POSTS];
    for (int i = 0; i < SCALED(POSTS); i++) {
        if (m->index <= POSTERS)
            lctx_cancel(posts[i].ctx);
        else if (i % 2 && lctx__mailbox_stop(posts[i].note))
            atomic_fetch_add(&posts[i].stopped, 1);
    }
    atomic_fetch_sub(&office->left, 1);
}

TEST(every_note_is_taken_once_or_stopped)
{
    static post_office office;
    office.mailbox = lctx__mailbox_new();
    atomic_store(&office.left, 2 * POSTERS);
    for (int i = 0; i < POSTERS; i++)
        for (int j = 0; j < SCALED(POSTS); j++) {
            post *p = &office.posts[i * POSTS + j];
            *p = (post){.ctx = lctx_with_cancel(lctx_background())};
            p->note = lctx__mailbox_register(office.mailbox, p->ctx, LCTX_KIND_WAITER, p - office.posts);
        }
    in_threads(1 + 2 * POSTERS, post_some, &office);
    for (int i = 0; i < POSTERS; i++)
        for (int j = 0; j < SCALED(POSTS); j++) {
            post *p = &office.posts[i * POSTS + j];
            CHECK(p->taken + atomic_load(&p->stopped) == 1);
            lctx__after_unref(p->note);
            lctx_unref(p->ctx);
        }
    CHECK(lctx__mailbox_take(office.mailbox) == NULL);
    lctx__mailbox_close(office.mailbox);
}

TEST(a_mailbox_is_due_at_once_for_what_this_thread_caused)
{
    lctx_mailbox *mailbox = lctx__mailbox_new();
    lctx *ctx = lctx_with_cancel(lctx_background());
    lctx_after *notes[4], *taken;
    for (int i = 0; i < 3; i++)
        notes[i] = lctx__mailbox_register(mailbox, ctx, LCTX_KIND_CALLBACK, i);
    CHECK(!lctx__mailbox_is_due(mailbox) && lctx__mailbox_take(mailbox) == NULL && stats_now().callbacks == 3);
    lctx_cancel(ctx);
    notes[3] = lctx__mailbox_register(mailbox, ctx, LCTX_KIND_CALLBACK, 3);
    int fd = lctx__mailbox_fd(mailbox);
    CHECK(lctx__mailbox_is_due(mailbox) && is_readable(fd, 0) && lctx__mailbox_wait(mailbox, LCTX_NEVER));
    for (int i = 0; i < 4; i++) {
        CHECK((taken = lctx__mailbox_take(mailbox)) == notes[i] && !lctx__mailbox_stop(notes[i]));
        lctx__after_unref(taken);
        lctx__after_unref(notes[i]);
        CHECK(is_readable(fd, 0) == (i < 3));
    }
    notes[0] = lctx__mailbox_register(mailbox, lctx_background(), LCTX_KIND_WAITER, 0);
    CHECK(lctx__mailbox_stop(notes[0]) && !lctx__mailbox_stop(notes[0]));
    lctx__after_unref(notes[0]);
    lctx_unref(ctx);
    lctx__mailbox_close(mailbox);
}

typedef struct closing {
    lctx *ctx[8];
    lctx_mailbox *mailbox;
} closing;

static void close_while_posting(member *m)
{
    closing *c = m->shared;
    for (int round = 0; round < SCALED(2000); round++) {
        if (m->index == 0) {
            c->mailbox = lctx__mailbox_new();
            for (int i = 0; i < 8; i++) {
                c->ctx[i] = lctx_with_cancel(lctx_background());
                lctx__after_unref(lctx__mailbox_register(c->mailbox, c->ctx[i], LCTX_KIND_CALLBACK, i));
            }
        }
        meet(m);
        if (m->index == 0)
            lctx__mailbox_close(c->mailbox);
        else
            for (int i = m->index - 1; i < 8; i += 2)
                lctx_cancel(c->ctx[i]);
        meet(m);
        if (m->index == 0)
            unref_all(c->ctx, 8);
    }
}

TEST(a_mailbox_may_be_closed_while_notes_are_posted)
{
    closing c;
    in_threads(3, close_while_posting, &c);
}

static void intern_keys(member *m)
{
    _Atomic(lctx_key *) *agreed = m->shared;
    char text[16];
    for (int round = 0; round < SCALED(2000); round++) {
        const lctx_any content = {
            .type = LCTX_STRING, .as.string = text, .of.length = (size_t)sprintf(text, "%d", round)};
        lctx_key *key = lctx__key_of(&content, true), *none = NULL;
        meet(m);
        if (!atomic_compare_exchange_strong(agreed, &none, key))
            CHECK(none == key);
        meet(m);
        atomic_store(agreed, NULL);
        lctx__key_unref(key);
        meet(m);
    }
}

TEST(threads_agree_on_the_key_of_a_content)
{
    _Atomic(lctx_key *) agreed = NULL;
    in_threads(3, intern_keys, &agreed);
    CHECK(lctx__key_of(&(lctx_any){.type = LCTX_STRING, .as.string = "1", .of.length = 1}, false) == NULL);
}

/* ---- Random schedules --------------------------------------------------------------------------------------
 * Threads pick contexts from a table, derive, end, ask, wait, register and drop, and check all the while:
 * the first end wins; what is derived under an ended context is ended likewise; when a cancel has returned,
 * everything in the table below it has ended; a callback runs or is stopped. */

enum { SLOTS = 48, MOST_ABOVE = 64, MINE = 24 };

/* What the test knows of a context. Shadows are freed at the end of the test. */
typedef struct shadow {
    lctx *ctx;
    struct shadow *above[2]; /* what ends it; NULL: nothing */
    struct shadow *next;
    _Atomic uint64_t end; /* err and cause as first seen */
} shadow;

typedef struct play {
    pthread_mutex_t mutex; /* the table; a shadow in it has a reference */
    shadow *slots[SLOTS];
    _Atomic(shadow *) all;
    uint64_t seed;
    bool merges;
    int steps;
} play;

typedef struct registration {
    shadow *on; /* with a reference */
    lctx_after *after;
    atomic_int runs;
} registration;

static atomic_llong next_cause;

/* Notes how it ended; every later look must see the same. */
static bool look(shadow *s)
{
    lctx_any cause = of_integer(0);
    lctx_err_t err = lctx_err(s->ctx);
    if (err == LCTX_LIVE)
        return false;
    lctx_cause(s->ctx, &cause);
    uint64_t end = (uint64_t)cause.as.integer << 2 | (uint64_t)err, before = 0;
    if (!atomic_compare_exchange_strong(&s->end, &before, end))
        CHECK(before == end);
    return true;
}

static shadow *pick(play *p, uint64_t *seed)
{
    pthread_mutex_lock(&p->mutex);
    shadow *s = p->slots[check_random(seed) % SLOTS];
    lctx_ref(s->ctx);
    pthread_mutex_unlock(&p->mutex);
    return s;
}

/* Takes over the reference of s. */
static void put(play *p, shadow *s, uint64_t *seed)
{
    pthread_mutex_lock(&p->mutex);
    shadow **slot = &p->slots[check_random(seed) % SLOTS], *before = *slot;
    *slot = s;
    pthread_mutex_unlock(&p->mutex);
    lctx_unref(before->ctx);
}

static shadow *new_shadow(play *p, lctx *ctx, shadow *above, shadow *other)
{
    shadow *s = malloc(sizeof *s);
    *s = (shadow){.ctx = ctx, .above = {above, other}, .next = atomic_load(&p->all)};
    while (!atomic_compare_exchange_weak(&p->all, &s->next, s))
        continue;
    return s;
}

/* 1 or 0; 0 also for who has too much above it to tell. */
static bool is_below(const shadow *s, const shadow *top)
{
    const shadow *seen[MOST_ABOVE] = {s};
    int count = 1;
    for (int i = 0; i < count; i++) {
        if (seen[i] == top)
            return true;
        for (int j = 0; j < 2 && seen[i]->above[j]; j++) {
            int at = 0;
            while (at < count && seen[at] != seen[i]->above[j])
                at++;
            if (at == count && count < MOST_ABOVE)
                seen[count++] = seen[i]->above[j];
        }
    }
    return false;
}

static void derive(play *p, uint64_t *seed)
{
    shadow *parent = pick(p, seed), *other = NULL, *made;
    bool had_ended = look(parent);
    const lctx_any cause = of_integer(atomic_fetch_add(&next_cause, 1) + 1);
    uint64_t dice = check_random(seed) % (p->merges ? 14 : 10);
    if (dice == 0) {
        made = new_shadow(p, lctx_with_cancel(lctx_background()), NULL, NULL);
    } else if (dice == 1) {
        made = new_shadow(p, lctx_without_cancel(parent->ctx), NULL, NULL);
    } else if (dice < 4) {
        made = new_shadow(p, lctx_with_value(parent->ctx, &user_key, cause), parent, NULL);
    } else if (dice < 6) {
        double seconds = (double)(check_random(seed) % 4000) / 1e6;
        made = new_shadow(p, lctx_with_timeout(parent->ctx, seconds, &cause), parent, NULL);
    } else if (dice < 10) {
        made = new_shadow(p, lctx_with_cancel(parent->ctx), parent, NULL);
    } else {
        other = pick(p, seed);
        made = new_shadow(p, lctx_merge(2, (lctx *[]){parent->ctx, other->ctx}), parent, other);
        lctx_unref(other->ctx);
    }
    if (had_ended && made->above[0]) {
        CHECK(look(made));
        CHECK(atomic_load(&made->end) == atomic_load(&parent->end));
    }
    lctx_unref(parent->ctx);
    put(p, made, seed);
}

static void check_below(play *p, const shadow *top)
{
    pthread_mutex_lock(&p->mutex);
    for (int i = 0; i < SLOTS; i++)
        if (is_below(p->slots[i], top))
            CHECK(look(p->slots[i]));
    pthread_mutex_unlock(&p->mutex);
}

static void cancel_one(play *p, uint64_t *seed)
{
    shadow *s = pick(p, seed);
    const lctx_any cause = of_integer(atomic_fetch_add(&next_cause, 1) + 1);
    CHECK(lctx_cancel_cause(s->ctx, &cause) == 0);
    if (lctx__is_scope(s->ctx) && CHECK(look(s))) /* a cancel of a value context does nothing */
        check_below(p, s);
    lctx_unref(s->ctx);
}

static void finish(registration *r)
{
    if (r->after == NULL)
        return;
    if (lctx_after_stop(r->after)) {
        CHECK(atomic_load(&r->runs) == 0);
    } else {
        CHECK(look(r->on));
        wait_for_count(&r->runs, 1); /* perhaps another thread is about to run it */
        CHECK(atomic_load(&r->runs) == 1);
    }
    CHECK(!lctx_after_stop(r->after));
    lctx_after_free(r->after);
    lctx_unref(r->on->ctx);
    r->after = NULL;
}

static void register_one(play *p, registration *mine, uint64_t *seed)
{
    registration *r = &mine[check_random(seed) % MINE];
    finish(r);
    r->on = pick(p, seed);
    atomic_store(&r->runs, 0);
    r->after = lctx_after_func(r->on->ctx, count_call, &r->runs);
}

static void wait_for_one(play *p, uint64_t *seed)
{
    shadow *s = pick(p, seed);
    if (lctx_wait(s->ctx, (double)(check_random(seed) % 200) / 1e6))
        CHECK(look(s));
    lctx_unref(s->ctx);
}

static void watch_one(play *p, uint64_t *seed)
{
    shadow *s = pick(p, seed);
    lctx_notifier *notifier = lctx_notifier_new(s->ctx);
    if (is_readable(lctx_notifier_fd(notifier), 0))
        CHECK(look(s));
    lctx_notifier_free(notifier);
    lctx_unref(s->ctx);
}

static void play_on(member *m)
{
    play *p = m->shared;
    uint64_t seed = p->seed * 31 + (uint64_t)m->index;
    registration mine[MINE] = {{0}};
    for (int step = 0; step < p->steps; step++) {
        uint64_t dice = check_random(&seed) % 32;
        if (dice < 16)
            derive(p, &seed);
        else if (dice < 20)
            cancel_one(p, &seed);
        else if (dice < 27)
            register_one(p, mine, &seed);
        else if (dice < 28)
            watch_one(p, &seed);
        else if (dice < 29)
            wait_for_one(p, &seed);
        else
            put(p, new_shadow(p, lctx_with_cancel(lctx_background()), NULL, NULL), &seed);
    }
    for (int i = 0; i < MINE; i++)
        finish(&mine[i]);
}

static void play_random(bool merges)
{
    play p = {.mutex = PTHREAD_MUTEX_INITIALIZER, .seed = first_seed(), .merges = merges, .steps = 100000};
    for (int i = 0; i < SLOTS; i++)
        p.slots[i] = new_shadow(&p, lctx_with_cancel(lctx_background()), NULL, NULL);
    in_threads(4, play_on, &p);
    for (int i = 0; i < SLOTS; i++)
        lctx_unref(p.slots[i]->ctx);
    for (shadow *s = atomic_load(&p.all), *next; s; s = next) {
        next = s->next;
        free(s);
    }
}

TEST(random_schedules_keep_the_rules)
{
    play_random(false);
}

TEST(random_schedules_with_merges_keep_the_rules)
{
    play_random(true);
}

/* ---- Walks that meet in merges --------------------------------------------------------------------------- */

enum { CROSSED = 40 };

typedef struct crossing {
    lctx *a, *b, *b1, *merges[2 * CROSSED], *leaves[2 * CROSSED];
} crossing;

static void make_crossing(crossing *c)
{
    c->a = lctx_with_cancel(lctx_background());
    c->b = lctx_with_cancel(lctx_background());
    c->b1 = lctx_with_cancel(c->b);
    for (int i = 0; i < 2 * CROSSED; i++) { /* from a the first half comes first, from b the second one */
        c->merges[i] = lctx_merge(2, (lctx *[]){c->a, i < CROSSED ? c->b1 : c->b});
        c->leaves[i] = lctx_with_cancel(c->merges[i]);
    }
}

static void cross(member *m)
{
    crossing *c = m->shared;
    for (int round = 0; round < SCALED(2000); round++) {
        if (m->index == 0)
            make_crossing(c);
        meet(m);
        lctx_cancel(m->index == 0 ? c->a : c->b);
        for (int i = 0; i < 2 * CROSSED; i++)
            CHECK(lctx_err(c->leaves[i]) == LCTX_CANCELED);
        meet(m);
        if (m->index == 0) {
            unref_all(c->leaves, 2 * CROSSED);
            unref_all(c->merges, 2 * CROSSED);
            lctx *rest[] = {c->b1, c->b, c->a};
            unref_all(rest, 3);
        }
        meet(m);
    }
}

TEST(walks_that_meet_in_merges_do_not_wait_in_a_circle)
{
    static crossing c;
    in_threads(2, cross, &c);
}

int main(int argc, char **argv)
{
    static const check_case cases[] = {
        CASE(simultaneous_cancels_all_over_a_tree_return),
        CASE(interlocked_cancels_return),
        CASE(a_child_made_while_its_parent_ends_is_never_lost),
        CASE(every_canceler_returns_when_everything_below_has_ended),
        CASE(a_canceler_waits_for_walks_that_began_below_after_its_own),
        CASE(last_references_go_while_a_walk_comes_from_above),
        CASE(threads_derive_from_shared_contexts_and_drop),
        CASE(children_of_threads_that_take_turns_end_in_the_order_of_their_creation),
        CASE(a_cause_is_seen_whole_or_not_at_all),
        CASE(who_sees_the_error_finds_cause_and_done),
        CASE(of_cancels_and_a_deadline_the_first_wins_for_everybody),
        CASE(a_cancel_wakes_everybody_who_waits),
        CASE(a_deadline_wakes_who_waits),
        CASE(a_wait_gives_up_when_its_time_is_up),
        CASE(the_timer_thread_goes_and_comes_back),
        CASE(a_callback_runs_or_is_stopped_never_both),
        CASE(no_lock_is_held_while_a_callback_runs),
        CASE(a_deadline_runs_callbacks_and_lets_go),
        CASE(a_notifier_is_readable_from_the_end_on),
        CASE(a_notifier_may_be_freed_while_it_is_rung),
        CASE(every_note_is_taken_once_or_stopped),
        CASE(a_mailbox_is_due_at_once_for_what_this_thread_caused),
        CASE(a_mailbox_may_be_closed_while_notes_are_posted),
        CASE(threads_agree_on_the_key_of_a_content),
        CASE(random_schedules_keep_the_rules),
        CASE(walks_that_meet_in_merges_do_not_wait_in_a_circle),
        CASE(random_schedules_with_merges_keep_the_rules),
    };
    return CHECK_MAIN(cases);
}
