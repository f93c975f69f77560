/* SPDX-License-Identifier: MIT
 *
 * fork() at random moments, while threads are in the middle of everything the core can do. Parent and child are both
 * used after it. FORKS (default 200) and SEED can be set in the environment.
 *
 * Not under the address sanitizer, which does not keep its allocator usable in the child of a threaded process.
 */
#include <errno.h>
#include <sys/wait.h>

#include "../../csrc/core/key.h"
#include "../../csrc/core/mailbox.h"
#include "../core/threads.h"
#include "../core/values.h"

enum { TREES = 40, BRANCHES = 6, KEYS = 24, WORKERS = 3 };

typedef struct tree {
    lctx *root, *branches[BRANCHES], *merge, *leaf; /* each branch below the one before; the leaf below the merge */
} tree;

typedef struct garden {
    tree trees[TREES];
    lctx_mailbox *mailbox;
    lctx_after *notes[TREES];
    atomic_int stop, next;
    uint64_t seed;
    int forks;
} garden;

static char keys[KEYS];
static atomic_long works, fired;

#ifdef CHECK_TSAN
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}
#endif

static void count_call(lctx_after *after, void *unused)
{
    (void)after, (void)unused;
    atomic_fetch_add(&fired, 1);
}

/* ---- What is there when the process forks ---------------------------------------------------------------- */

static void plant(tree *t)
{
    t->root = lctx_with_cancel(lctx_background());
    for (int i = 0; i < BRANCHES; i++) {
        lctx *above = i ? t->branches[i - 1] : t->root;
        t->branches[i] = i % 3 == 0   ? lctx_with_timeout(above, 3600 - i, NULL)
                         : i % 3 == 1 ? lctx_with_value(above, &keys[i], of_integer(i))
                                      : lctx_with_cancel(above);
    }
    t->merge = lctx_merge(2, (lctx *[]){t->branches[2], t->branches[BRANCHES - 1]});
    t->leaf = lctx_with_cancel(t->merge);
    lctx_after_free(lctx_after_func(t->merge, count_call, NULL));
}

static void fell(tree *t)
{
    lctx_cancel(t->root);
    lctx_unref(t->leaf);
    lctx_unref(t->merge);
    unref_all(t->branches, BRANCHES);
    lctx_unref(t->root);
}

static bool is_whole(tree *t)
{
    bool ended = lctx_err(t->root) != LCTX_LIVE, whole = ended == (lctx_err(t->leaf) != LCTX_LIVE);
    for (int i = 0; i < BRANCHES; i++)
        whole &= ended == (lctx_err(t->branches[i]) != LCTX_LIVE);
    return whole;
}

/* ---- What the threads do --------------------------------------------------------------------------------- */

static void use_keys(lctx *ctx, uint64_t *rng)
{
    lctx_any any, content = of_integer((int64_t)(check_random(rng) % 50));
    lctx_key *interned = lctx__key_of(&content, true);
    lctx_entry entries[KEYS];
    for (int i = 0; i < KEYS; i++)
        entries[i] = (lctx_entry){&keys[i], of_integer(i)};
    lctx *values = lctx_with_values(ctx, KEYS, entries), *one = lctx_with_value(values, interned, of_integer(-1));
    CHECK(lctx_value(one, &keys[KEYS - 1], &any) && any.as.integer == KEYS - 1);
    lctx_unref(one);
    lctx_unref(values);
    lctx__key_unref(interned);
}

static void use_mailbox(lctx *ctx)
{
    lctx_mailbox *mailbox = lctx__mailbox_new();
    lctx_after *note = lctx__mailbox_register(mailbox, ctx, LCTX_KIND_WAITER, 0);
    lctx__mailbox_fd(mailbox);
    lctx__mailbox_wait(mailbox, lctx__instant(0.0002));
    lctx__mailbox_stop(note);
    lctx_after *taken = lctx__mailbox_take(mailbox);
    if (taken)
        lctx__after_unref(taken);
    lctx__after_unref(note);
    lctx__mailbox_close(mailbox);
}

static void work_once(uint64_t *rng)
{
    lctx *root = lctx_with_cancel(lctx_background());
    lctx *timed = lctx_with_timeout(root, (double)(check_random(rng) % 500) / 1e6, NULL), *below[4];
    for (int i = 0; i < 4; i++)
        below[i] = i % 2 ? lctx_merge(2, (lctx *[]){timed, root}) : lctx_with_cancel(i ? below[i - 1] : timed);
    lctx_after *after = lctx_after_func(below[3], count_call, NULL);
    lctx_notifier *notifier = lctx_notifier_new(below[2]);
    if (check_random(rng) % 2)
        lctx_cancel(root);
    use_keys(below[1], rng);
    use_mailbox(timed);
    lctx_wait(below[0], 0.0001);
    lctx_after_stop(after);
    lctx_after_free(after);
    lctx_notifier_free(notifier);
    unref_all(below, 4);
    lctx_unref(timed);
    lctx_unref(root);
    atomic_fetch_add(&works, 1);
}

static void work(garden *g, uint64_t *rng)
{
    while (!atomic_load(&g->stop)) {
        if (check_random(rng) % 8 == 0) {
            int next = atomic_fetch_add(&g->next, 1);
            if (next < TREES)
                lctx_cancel(g->trees[next].root);
        }
        work_once(rng);
    }
}

/* ---- What both processes do after the fork --------------------------------------------------------------- */

static void use_deadline(void)
{
    lctx *ctx = lctx_with_timeout(lctx_background(), 0.001, NULL);
    CHECK(lctx_wait(ctx, 30) && lctx_err(ctx) == LCTX_DEADLINE_EXCEEDED);
    lctx_unref(ctx);
}

static void use_everything(garden *g, uint64_t seed)
{
    for (int i = 0; i < 3; i++)
        work_once(&seed);
    use_deadline();
    CHECK(lctx__mailbox_fd(g->mailbox) >= 0);
}

static void use_in_child(garden *g, uint64_t seed)
{
    int taken = 0, ended = 0;
    for (int i = 0; i < TREES; i++)
        CHECK(is_whole(&g->trees[i])); /* no walk was cut in two */
    use_everything(g, seed);
    for (int i = 0; i < TREES; i++)
        ended += lctx_err(g->trees[i].root) != LCTX_LIVE;
    for (lctx_after *note; (note = lctx__mailbox_take(g->mailbox)); taken++)
        lctx__after_unref(note);
    CHECK(taken == ended);
    for (int i = 0; i < TREES; i++)
        fell(&g->trees[i]);
    for (; lctx__mailbox_take(g->mailbox); taken++)
        continue;
    CHECK(taken == TREES);
}

static void fork_once(garden *g, uint64_t seed)
{
    int status = -1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        atomic_store(&check_failures, 0);
        alarm(60);
        use_in_child(g, seed);
        _exit(atomic_load(&check_failures) != 0);
    }
    use_everything(g, seed + 1);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (!CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0))
        fprintf(stderr, "  SEED=%llu, status %x\n", (unsigned long long)g->seed, status);
}

static void play(member *m)
{
    garden *g = m->shared;
    uint64_t rng = g->seed * 100 + (uint64_t)m->index;
    if (m->index > 0) {
        work(g, &rng);
        return;
    }
    for (int i = 0; i < g->forks; i++) {
        nanosleep(&(struct timespec){0, (long)(check_random(&rng) % 2000000)}, NULL);
        fork_once(g, check_random(&rng));
    }
    atomic_store(&g->stop, 1);
}

static void play_round(garden *g)
{
    g->mailbox = lctx__mailbox_new();
    for (int i = 0; i < TREES; i++) {
        plant(&g->trees[i]);
        g->notes[i] = lctx__mailbox_register(g->mailbox, g->trees[i].root, LCTX_KIND_CALLBACK, i);
    }
    in_threads(WORKERS + 1, play, g);
    for (int i = 0; i < TREES; i++) {
        CHECK(is_whole(&g->trees[i]));
        fell(&g->trees[i]);
        lctx__after_unref(g->notes[i]);
    }
    lctx__mailbox_close(g->mailbox);
}

static unsigned long long number_from(const char *name, unsigned long long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

TEST(forks_at_random_moments_leave_two_processes_that_work)
{
    enum { PER_ROUND = 20 };
    int forks = (int)number_from("FORKS", SCALED(200)), done = 0;
    uint64_t seed = number_from("SEED", (unsigned long long)time(NULL) % 1000000000);
    printf("SEED=%llu\n", (unsigned long long)seed);
    for (; done < forks && atomic_load(&check_failures) == 0; done += PER_ROUND) {
        static garden g;
        g = (garden){.seed = seed + (uint64_t)done, .forks = PER_ROUND};
        alarm(120);
        play_round(&g);
    }
    printf("%d forks, meanwhile %ld pieces of work, %ld callbacks\n", done, atomic_load(&works), atomic_load(&fired));
}

int main(int argc, char **argv)
{
#ifdef CHECK_ASAN
    (void)argc, (void)argv;
    (void)forks_at_random_moments_leave_two_processes_that_work;
    printf("skipped under the address sanitizer\n0 passed, 0 failed\n");
    return 0;
#else
    static const check_case cases[] = {
        CASE(forks_at_random_moments_leave_two_processes_that_work),
    };
    return CHECK_MAIN(cases);
#endif
}
