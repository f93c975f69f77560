/* SPDX-License-Identifier: MIT
 *
 * fork(), in the middle of anything: in the child contexts are as they were, and everything works on.
 * Children do their checks, and tell by their exit status.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <sys/wait.h>

#include "../../csrc/core/mailbox.h"
#include "../../csrc/core/timer.h"
#include "threads.h"
#include "values.h"

static char user_key;

#ifdef CHECK_TSAN
/* Children of threaded processes start threads here: that is the point. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}
#endif

/* Starts a child that runs `run`. */
static pid_t fork_to(void (*run)(void *), void *arg)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    atomic_store(&check_failures, 0);
    alarm(60);
    run(arg);
    _exit(atomic_load(&check_failures) != 0);
}

static bool child_passes(pid_t pid)
{
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool passes_in_child(void (*run)(void *), void *arg)
{
    return child_passes(fork_to(run, arg));
}

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, timeout_ms) == 1 && (poll_fd.revents & POLLIN);
}

/* ---- A quiet process ------------------------------------------------------------------------------------- */

typedef struct family {
    lctx *live, *child, *ended, *value, *timed;
} family;

static void look_at_family(void *arg)
{
    family *f = arg;
    CHECK(lctx_err(f->live) == LCTX_LIVE && ended_as(f->ended, LCTX_CANCELED, "before"));
    CHECK(value_is(f->value, &user_key, "alice") && lctx_remaining(f->timed) > 3000);
    cancel_with(f->live, "here");
    CHECK(ended_as(f->child, LCTX_CANCELED, "here") && ended_as(f->value, LCTX_CANCELED, "here"));
    CHECK(ended_as(f->timed, LCTX_CANCELED, "here") && lctx_wait(f->child, INFINITY));
    lctx *fresh = lctx_with_cancel(f->ended);
    CHECK(ended_as(fresh, LCTX_CANCELED, "before"));
    lctx *all[] = {fresh, f->timed, f->value, f->ended, f->child, f->live};
    unref_all(all, 6);
    CHECK(check_nothing_left());
}

TEST(contexts_keep_their_state_and_parent_and_child_process_go_their_own_ways)
{
    family f = {.live = lctx_with_cancel(lctx_background()), .ended = lctx_with_cancel(lctx_background())};
    f.child = lctx_with_cancel(f.live);
    f.value = lctx_with_value(f.live, &user_key, of_string("alice"));
    f.timed = lctx_with_timeout(f.value, 3600, NULL);
    cancel_with(f.ended, "before");
    CHECK(passes_in_child(look_at_family, &f));
    CHECK(lctx_err(f.live) == LCTX_LIVE && lctx_err(f.timed) == LCTX_LIVE && stats_now().timers == 1);
    lctx *all[] = {f.timed, f.value, f.ended, f.child, f.live};
    unref_all(all, 5);
}

static void wait_for_deadline(void *arg)
{
    lctx *ctx = arg, *child = lctx_with_cancel(ctx);
    CHECK(lctx_wait(child, 30) && lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED);
    lctx *fresh = lctx_with_timeout(lctx_background(), 0.002, NULL);
    CHECK(lctx_wait(fresh, 30) && lctx_err(fresh) == LCTX_DEADLINE_EXCEEDED);
}

static void poll_for_deadline(void *arg)
{
    double start = lctx_monotonic();
    while (lctx_err(arg) == LCTX_LIVE && lctx_monotonic() < start + 30)
        sched_yield();
    CHECK(lctx_err(arg) == LCTX_DEADLINE_EXCEEDED);
}

static void watch_for_deadline(void *arg)
{
    lctx_notifier *notifier = lctx_notifier_new(arg);
    lctx *fresh = lctx_with_timeout(lctx_background(), 0.001, NULL); /* starts the thread again */
    CHECK(is_readable(lctx_notifier_fd(notifier), 30000) && lctx_err(arg) == LCTX_DEADLINE_EXCEEDED);
    lctx_notifier_free(notifier);
    lctx_unref(fresh);
}

static void await_note_of_deadline(void *arg)
{
    lctx_mailbox *mailbox = lctx__mailbox_new();
    lctx_after *note = lctx__mailbox_register(mailbox, arg, LCTX_KIND_WAITER, 0);
    lctx_ns until = lctx__instant(30);
    while (!lctx__mailbox_is_due(mailbox) && lctx__monotonic() < until)
        lctx__mailbox_wait(mailbox, until);
    CHECK(lctx__mailbox_take(mailbox) == note && lctx_err(arg) == LCTX_DEADLINE_EXCEEDED);
}

TEST(deadlines_from_before_and_after_pass_in_the_child)
{
    void (*const ways[])(void *) = {wait_for_deadline, poll_for_deadline, watch_for_deadline, await_note_of_deadline};
    for (int i = 0; i < 20; i++) {
        lctx *ctx = lctx_with_timeout(lctx_background(), 0.01, NULL);
        CHECK(passes_in_child(ways[i % 4], ctx));
        CHECK(lctx_wait(ctx, 30) && lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED);
        lctx_unref(ctx);
    }
}

static void fork_again(void *arg)
{
    CHECK(passes_in_child(wait_for_deadline, arg));
    wait_for_deadline(arg);
}

TEST(a_child_may_fork_again)
{
    lctx *ctx = lctx_with_timeout(lctx_background(), 0.02, NULL);
    CHECK(passes_in_child(fork_again, ctx));
    lctx_unref(ctx);
}

static void fork_in_callback(lctx_after *after, void *arg)
{
    (void)after;
    CHECK(passes_in_child(wait_for_deadline, arg));
}

TEST(a_callback_may_fork)
{
    lctx *ctx = lctx_with_cancel(lctx_background()), *timed = lctx_with_timeout(lctx_background(), 0.01, NULL);
    lctx_after_free(lctx_after_func(ctx, fork_in_callback, timed));
    lctx_cancel(ctx);
    lctx_unref(ctx);
    lctx_unref(timed);
}

/* ---- Descriptors ----------------------------------------------------------------------------------------- */

typedef struct bells {
    lctx *ctx;
    lctx_mailbox *mailbox;
    lctx_after *note;
    lctx_notifier *notifier;
    int release[2]; /* a pipe: the child goes on when the parent has written */
} bells;

static void ring_in_child(void *arg)
{
    bells *b = arg;
    CHECK(!lctx__mailbox_is_due(b->mailbox));
    lctx_cancel(b->ctx);
    CHECK(is_readable(lctx__mailbox_fd(b->mailbox), 0));
    CHECK(lctx__mailbox_take(b->mailbox) == b->note && !is_readable(lctx__mailbox_fd(b->mailbox), 0));
}

TEST(a_mailbox_in_the_child_does_not_ring_in_the_parent)
{
    bells b = {.ctx = lctx_with_cancel(lctx_background()), .mailbox = lctx__mailbox_new()};
    b.note = lctx__mailbox_register(b.mailbox, b.ctx, LCTX_KIND_WAITER, 0);
    int fd = lctx__mailbox_fd(b.mailbox);
    CHECK(passes_in_child(ring_in_child, &b));
    CHECK(!is_readable(fd, 0) && !lctx__mailbox_is_due(b.mailbox) && lctx_err(b.ctx) == LCTX_LIVE);
    lctx_cancel(b.ctx);
    CHECK(is_readable(fd, 0) && lctx__mailbox_take(b.mailbox) == b.note);
    lctx__after_unref(b.note);
    lctx__after_unref(b.note);
    lctx__mailbox_close(b.mailbox);
    lctx_unref(b.ctx);
}

static void find_posted(void *arg)
{
    bells *b = arg;
    char byte;
    CHECK(read(b->release[0], &byte, 1) == 1); /* the parent has taken its own */
    CHECK(lctx__mailbox_is_due(b->mailbox) && is_readable(lctx__mailbox_fd(b->mailbox), 0));
    CHECK(lctx__mailbox_wait(b->mailbox, LCTX_NEVER) && lctx__mailbox_take(b->mailbox) == b->note);
    CHECK(!is_readable(lctx__mailbox_fd(b->mailbox), 0));
}

TEST(what_was_due_is_due_in_both_processes)
{
    bells b = {.ctx = lctx_with_cancel(lctx_background()), .mailbox = lctx__mailbox_new()};
    CHECK(pipe(b.release) == 0);
    b.note = lctx__mailbox_register(b.mailbox, b.ctx, LCTX_KIND_WAITER, 0);
    CHECK(lctx__mailbox_fd(b.mailbox) >= 0);
    lctx_cancel(b.ctx);
    pid_t pid = fork_to(find_posted, &b);
    CHECK(lctx__mailbox_take(b.mailbox) == b.note && !is_readable(lctx__mailbox_fd(b.mailbox), 0));
    CHECK(write(b.release[1], "", 1) == 1);
    CHECK(child_passes(pid));
    lctx__after_unref(b.note);
    lctx__after_unref(b.note);
    lctx__mailbox_close(b.mailbox);
    lctx_unref(b.ctx);
    close(b.release[0]);
    close(b.release[1]);
}

static void notify_in_child(void *arg)
{
    bells *b = arg;
    CHECK(!is_readable(lctx_notifier_fd(b->notifier), 0));
    lctx_cancel(b->ctx);
    CHECK(is_readable(lctx_notifier_fd(b->notifier), 0));
}

TEST(a_notifier_in_the_child_does_not_ring_in_the_parent)
{
    bells b = {.ctx = lctx_with_cancel(lctx_background())};
    b.notifier = lctx_notifier_new(b.ctx);
    CHECK(passes_in_child(notify_in_child, &b));
    CHECK(lctx_err(b.ctx) == LCTX_LIVE && !is_readable(lctx_notifier_fd(b.notifier), 0));
    lctx_cancel(b.ctx);
    CHECK(is_readable(lctx_notifier_fd(b.notifier), 0));
    lctx_notifier_free(b.notifier);
    lctx_unref(b.ctx);
}

static void fork_for_deadlines(member *m)
{
    lctx **ctx = m->shared;
    for (int i = 0; i < SCALED(100); i++)
        CHECK(passes_in_child(i % 2 ? wait_for_deadline : poll_for_deadline, ctx[m->index]));
}

TEST(two_threads_may_fork_at_once)
{
    lctx *ctx[2];
    for (int i = 0; i < 2; i++)
        ctx[i] = lctx_with_timeout(lctx_background(), 0.005, NULL);
    in_threads(2, fork_for_deadlines, ctx);
    unref_all(ctx, 2);
}

/* ---- A busy process ----------------------------------------------------------------------------------------
 * Not under the address sanitizer: it does not take the locks of its own allocator before a fork, so that a
 * child hangs in malloc if another thread was just there. */
#ifndef CHECK_ASAN

static void count_call(lctx_after *after, void *counter)
{
    (void)after;
    atomic_fetch_add((atomic_int *)counter, 1);
}

enum { TREES = 300, LEAVES = 60 };

typedef struct forest {
    lctx *roots[TREES], *middles[TREES], *leaves[TREES][LEAVES];
    atomic_int callbacks, next, stop;
    lctx *parked; /* what a thread waits on */
    int forks;
} forest;

static void plant(forest *f)
{
    for (int i = 0; i < TREES; i++) {
        f->roots[i] = lctx_with_cancel(lctx_background());
        f->middles[i] = lctx_with_timeout(f->roots[i], 3600, NULL);
        for (int j = 0; j < LEAVES; j++)
            f->leaves[i][j] = lctx_with_cancel(j % 2 ? f->middles[i] : f->roots[i]);
        lctx_after_free(lctx_after_func(f->middles[i], count_call, &f->callbacks));
    }
    f->parked = lctx_with_cancel(lctx_background());
}

static void fell(forest *f)
{
    for (int i = 0; i < TREES; i++) {
        lctx_cancel(f->roots[i]); /* else the callback would keep it for an hour */
        unref_all(f->leaves[i], LEAVES);
        lctx_unref(f->middles[i]);
        lctx_unref(f->roots[i]);
    }
    lctx_unref(f->parked);
}

static bool tree_is(const forest *f, int i, bool ended)
{
    for (int j = 0; j < LEAVES; j++)
        if ((lctx_err(f->leaves[i][j]) != LCTX_LIVE) != ended)
            return false;
    return (lctx_err(f->middles[i]) != LCTX_LIVE) == ended;
}

/* No walk is cut off in the middle, no lock is held by a thread that is not here. */
static void use_forest(void *arg)
{
    forest *f = arg;
    lctx *timed = lctx_with_timeout(lctx_background(), 0.001, NULL);
    for (int i = 0; i < TREES; i++)
        CHECK(tree_is(f, i, lctx_err(f->roots[i]) != LCTX_LIVE));
    for (int i = 0; i < TREES; i++) {
        lctx_cancel(f->roots[i]);
        CHECK(tree_is(f, i, true));
    }
    CHECK(!lctx_wait(f->parked, 0));
    lctx_cancel(f->parked);
    CHECK(lctx_wait(f->parked, INFINITY));
    CHECK(lctx_wait(timed, 30));
    lctx_unref(timed);
    fell(f);
}

/* Ends trees that nobody forks in and, as often, trees of its own with deadlines, which come and go. */
static void make_trouble(forest *f, uint64_t *seed)
{
    lctx *top = lctx_with_timeout(lctx_background(), (double)(check_random(seed) % 300) / 1e6, NULL), *below[8];
    for (int i = 0; i < 8; i++)
        below[i] = lctx_with_timeout(i ? below[i / 2] : top, (double)(check_random(seed) % 300) / 1e6, NULL);
    lctx_after_free(lctx_after_func(below[7], count_call, &f->callbacks));
    if (check_random(seed) % 2)
        lctx_cancel(top);
    lctx_wait(below[0], 0.0001);
    unref_all(below, 8);
    lctx_unref(top);
}

static void fork_in_trouble(member *m)
{
    forest *f = m->shared;
    uint64_t seed = (uint64_t)m->index;
    if (m->index == 0) {
        for (int i = 0; i < f->forks; i++)
            CHECK(passes_in_child(use_forest, f));
        atomic_store(&f->stop, 1);
        lctx_cancel(f->parked);
    } else if (m->index == 1) {
        CHECK(lctx_wait(f->parked, INFINITY));
    } else {
        while (!atomic_load(&f->stop)) {
            int next = check_random(&seed) % 8 ? TREES : atomic_fetch_add(&f->next, 1);
            if (next < TREES)
                lctx_cancel(f->roots[next]);
            make_trouble(f, &seed);
        }
    }
}

TEST(no_walk_is_cut_in_two_and_no_lock_stays_held)
{
    static forest f;
    for (int round = 0; round < 4; round++) {
        f = (forest){.forks = SCALED(60)};
        plant(&f);
        in_threads(4, fork_in_trouble, &f);
        fell(&f);
    }
}

typedef struct closing {
    lctx *ctx;
    atomic_int stop;
} closing;

static void cancel_in_child(void *arg)
{
    closing *c = arg;
    lctx_cancel(c->ctx); /* rings whatever was registered, in mailboxes open, closed, or just being closed */
    CHECK(lctx_wait(c->ctx, INFINITY));
}

static void open_and_close(closing *c)
{
    lctx_mailbox *mailbox = lctx__mailbox_new();
    lctx_after *notes[4];
    for (int i = 0; i < 4; i++)
        notes[i] = lctx__mailbox_register(mailbox, c->ctx, LCTX_KIND_CALLBACK, i);
    lctx__mailbox_fd(mailbox);
    lctx__mailbox_close(mailbox);
    for (int i = 0; i < 4; i++) {
        lctx__mailbox_stop(notes[i]);
        lctx__after_unref(notes[i]);
    }
}

static void fork_while_closing(member *m)
{
    closing *c = m->shared;
    if (m->index > 0) {
        while (!atomic_load(&c->stop))
            open_and_close(c);
        return;
    }
    for (int i = 0; i < SCALED(500); i++)
        CHECK(passes_in_child(cancel_in_child, c));
    atomic_store(&c->stop, 1);
}

TEST(mailboxes_may_be_closed_meanwhile)
{
    closing c = {.ctx = lctx_with_cancel(lctx_background())};
    in_threads(2, fork_while_closing, &c);
    lctx_unref(c.ctx);
}

#endif

int main(int argc, char **argv)
{
    static const check_case cases[] = {
        CASE(contexts_keep_their_state_and_parent_and_child_process_go_their_own_ways),
        CASE(deadlines_from_before_and_after_pass_in_the_child),
        CASE(a_child_may_fork_again),
        CASE(a_callback_may_fork),
        CASE(a_mailbox_in_the_child_does_not_ring_in_the_parent),
        CASE(what_was_due_is_due_in_both_processes),
        CASE(a_notifier_in_the_child_does_not_ring_in_the_parent),
        CASE(two_threads_may_fork_at_once),
#ifndef CHECK_ASAN
        CASE(no_walk_is_cut_in_two_and_no_lock_stays_held),
        CASE(mailboxes_may_be_closed_meanwhile),
#endif
    };
    return CHECK_MAIN(cases);
}
