/* SPDX-License-Identifier: MIT
 *
 * A process that gets no threads, or no descriptors. Each test runs in a child, whose limits are its own. Nobody but
 * root can be above the limit of threads, so as root the child becomes somebody else.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "../../csrc/core/mailbox.h"
#include "../../csrc/core/timer.h"
#include "../core/values.h"

enum { NOBODY = 65534, SKIPPED = 77 };

#ifdef CHECK_TSAN
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    /* park.c makes mutexes anew in the child that are locked there: the sanitizer takes them for held ever after. */
    return "die_after_fork=0";
}
#endif

static void in_child(void (*run)(void))
{
    int status = -1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        run();
        _exit(atomic_load(&check_failures) != 0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
        printf("SKIPPED %s: this process can have threads all the same\n", check_running);
    else
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void set_limit(int which, rlim_t most)
{
    struct rlimit limit;
    CHECK(getrlimit(which, &limit) == 0);
    limit.rlim_cur = most < limit.rlim_max ? most : limit.rlim_max;
    CHECK(setrlimit(which, &limit) == 0);
}

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, timeout_ms) == 1 && (poll_fd.revents & POLLIN);
}

static void count_call(lctx_after *after, void *counter)
{
    (void)after;
    atomic_fetch_add((atomic_int *)counter, 1);
}

/* ---- No threads ------------------------------------------------------------------------------------------ */

static void *do_nothing(void *unused)
{
    return unused;
}

static void forbid_threads(void)
{
    pthread_t thread;
    if (getuid() == 0 && (setgid(NOBODY) != 0 || setuid(NOBODY) != 0))
        _exit(SKIPPED);
    set_limit(RLIMIT_NPROC, 0);
    if (pthread_create(&thread, NULL, do_nothing, NULL) == 0)
        _exit(SKIPPED);
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void ask_without_thread(void)
{
    forbid_threads();
    lctx *by_err = lctx_with_timeout(lctx_background(), 0.01, NULL), *below = lctx_with_cancel(by_err);
    lctx *by_remaining = lctx_with_timeout(lctx_background(), 0.01, NULL);
    CHECK(lctx_err(below) == LCTX_LIVE && atomic_load(&lctx__timers_unattended));
    sleep_ms(15);
    CHECK(lctx_err(below) == LCTX_DEADLINE_EXCEEDED && lctx_remaining(by_remaining) == 0);
    CHECK(lctx_err(by_remaining) == LCTX_DEADLINE_EXCEEDED);
    lctx *all[] = {below, by_err, by_remaining};
    unref_all(all, 3);
    CHECK(check_nothing_left());
}

TEST(without_threads_who_asks_finds_deadlines_passed)
{
    in_child(ask_without_thread);
}

static void wait_without_thread(void)
{
    forbid_threads();
    atomic_int calls = 0;
    double start = lctx_monotonic();
    lctx *ctx = lctx_with_timeout(lctx_background(), 0.02, NULL), *other = lctx_with_cancel(lctx_background());
    lctx_after *after = lctx_after_func(ctx, count_call, &calls);
    CHECK(!lctx_wait(other, 0.005) && !lctx_wait(ctx, 0.001) && lctx_wait(ctx, INFINITY));
    CHECK(lctx_monotonic() - start >= 0.02 && atomic_load(&calls) == 1);
    lctx *late = lctx_with_timeout(lctx_background(), 0.01, NULL);
    CHECK(!lctx_wait(other, 0.03) && lctx_err(late) == LCTX_DEADLINE_EXCEEDED);
    lctx_after_free(after);
    lctx *all[] = {ctx, other, late};
    unref_all(all, 3);
    CHECK(check_nothing_left());
}

TEST(without_threads_who_waits_is_woken_by_deadlines)
{
    in_child(wait_without_thread);
}

static void mail_without_thread(void)
{
    forbid_threads();
    lctx_mailbox *mailbox = lctx__mailbox_new();
    lctx *ctx = lctx_with_timeout(lctx_background(), 0.01, NULL);
    lctx_after *note = lctx__mailbox_register(mailbox, ctx, LCTX_KIND_WAITER, 0), *taken;
    lctx_ns until = lctx__instant(30);
    while (!(taken = lctx__mailbox_take(mailbox)) && lctx__monotonic() < until)
        lctx__mailbox_wait(mailbox, until);
    CHECK(taken == note && lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED && lctx__monotonic() < until);
}

TEST(without_threads_a_mailbox_gets_what_deadlines_end)
{
    in_child(mail_without_thread);
}

static void wait_for_thread(void)
{
    forbid_threads();
    lctx *first = lctx_with_timeout(lctx_background(), 3600, NULL); /* the next one is sooner */
    CHECK(!lctx_wait(first, 0) && atomic_load(&lctx__timers_unattended));
    set_limit(RLIMIT_NPROC, RLIM_INFINITY);
    lctx *second = lctx_with_timeout(lctx_background(), 0.02, NULL);
    CHECK(!atomic_load(&lctx__timers_unattended));
    lctx_notifier *notifier = lctx_notifier_new(second);
    CHECK(is_readable(lctx_notifier_fd(notifier), 30000)); /* nobody asks or waits: that is the thread */
}

/* Not only for one that is sooner than all that could not have a thread. */
static void wait_for_thread_late(void)
{
    forbid_threads();
    lctx *first = lctx_with_timeout(lctx_background(), 0.01, NULL);
    CHECK(atomic_load(&lctx__timers_unattended));
    set_limit(RLIMIT_NPROC, RLIM_INFINITY);
    lctx *second = lctx_with_timeout(lctx_background(), 0.02, NULL);
    CHECK(!atomic_load(&lctx__timers_unattended));
    sleep_ms(50);
    CHECK(stats_now().live == 0);
    lctx_unref(first);
    lctx_unref(second);
}

TEST(when_threads_are_to_be_had_again_any_new_deadline_starts_one)
{
    in_child(wait_for_thread_late);
}

TEST(when_threads_are_to_be_had_again_deadlines_pass_by_themselves)
{
    in_child(wait_for_thread);
}

/* ---- No descriptors -------------------------------------------------------------------------------------- */

/* The lowest that is free is the first that is forbidden. */
static void forbid_descriptors(void)
{
    int lowest = dup(0);
    CHECK(lowest >= 0);
    close(lowest);
    set_limit(RLIMIT_NOFILE, (rlim_t)lowest);
}

static void ask_for_descriptors(void)
{
    lctx *ctx = lctx_with_cancel(lctx_background());
    lctx_mailbox *mailbox = lctx__mailbox_new();
    forbid_descriptors();
    for (int i = 0; i < 3; i++) {
        errno = 0;
        CHECK(lctx_notifier_new(ctx) == NULL && errno == EMFILE);
        errno = 0;
        CHECK(lctx__mailbox_fd(mailbox) == -1 && errno == EMFILE);
    }
    CHECK(stats_now().waiters == 0);
    set_limit(RLIMIT_NOFILE, 256);
    lctx_notifier *notifier = lctx_notifier_new(ctx);
    lctx_after *note = lctx__mailbox_register(mailbox, ctx, LCTX_KIND_WAITER, 0);
    lctx_cancel(ctx);
    CHECK(notifier && is_readable(lctx_notifier_fd(notifier), 0) && is_readable(lctx__mailbox_fd(mailbox), 0));
    CHECK(lctx__mailbox_take(mailbox) == note && !is_readable(lctx__mailbox_fd(mailbox), 0));
}

TEST(without_descriptors_what_needs_one_says_so)
{
    in_child(ask_for_descriptors);
}

static void live_without_descriptors(void)
{
    atomic_int calls = 0;
    forbid_descriptors();
    lctx *root = lctx_with_cancel(lctx_background()), *timed = lctx_with_timeout(root, 0.01, NULL);
    lctx *merge = lctx_merge(2, (lctx *[]){timed, root}), *late = lctx_with_timeout(root, 3600, NULL);
    lctx_after *after = lctx_after_func(merge, count_call, &calls);
    lctx_mailbox *mailbox = lctx__mailbox_new();
    lctx_after *notes[] = {lctx__mailbox_register(mailbox, timed, LCTX_KIND_WAITER, 0),
                           lctx__mailbox_register(mailbox, late, LCTX_KIND_WAITER, 1)};
    lctx_ns until = lctx__instant(30);
    while (!lctx__mailbox_is_due(mailbox) && lctx__monotonic() < until)
        CHECK(lctx__mailbox_wait(mailbox, until));
    CHECK(lctx__mailbox_take(mailbox) == notes[0] && lctx_wait(merge, 30));
    cancel_with(root, "why");
    CHECK(ended_as(late, LCTX_CANCELED, "why") && lctx__mailbox_take(mailbox) == notes[1]);
    for (int i = 0; i < 2000 && atomic_load(&calls) == 0; i++)
        sleep_ms(1);
    CHECK(ended_as(merge, LCTX_DEADLINE_EXCEEDED, NULL) && atomic_load(&calls) == 1);
    lctx_after_free(after);
    lctx *all[] = {late, merge, timed, root};
    unref_all(all, 4);
}

TEST(without_descriptors_all_that_needs_none_works)
{
    in_child(live_without_descriptors);
}

/* ---- Both, and a fork ------------------------------------------------------------------------------------ */

static void fork_without_descriptors(void)
{
    int status = -1;
    lctx *ctx = lctx_with_cancel(lctx_background());
    lctx_notifier *notifier = lctx_notifier_new(ctx);
    forbid_descriptors();
    pid_t pid = fork();
    if (pid == 0) {
        lctx_cancel(ctx);
        _exit(!is_readable(lctx_notifier_fd(notifier), 0));
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(lctx_err(ctx) == LCTX_LIVE && !is_readable(lctx_notifier_fd(notifier), 0));
}

TEST(without_descriptors_a_child_does_not_ring_in_the_parent)
{
    in_child(fork_without_descriptors);
}

int main(int argc, char **argv)
{
    static const check_case cases[] = {
        CASE(without_threads_who_asks_finds_deadlines_passed),
        CASE(without_threads_who_waits_is_woken_by_deadlines),
        CASE(without_threads_a_mailbox_gets_what_deadlines_end),
        CASE(when_threads_are_to_be_had_again_deadlines_pass_by_themselves),
        CASE(when_threads_are_to_be_had_again_any_new_deadline_starts_one),
        CASE(without_descriptors_what_needs_one_says_so),
        CASE(without_descriptors_all_that_needs_none_works),
        CASE(without_descriptors_a_child_does_not_ring_in_the_parent),
    };
    return CHECK_MAIN(cases);
}
