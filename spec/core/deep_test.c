/* SPDX-License-Identifier: MIT
 *
 * Trees of a million contexts, on a stack of 256 KiB: nothing may recurse along a tree.
 */
#include <pthread.h>
#include <sys/resource.h>

#include "values.h"

enum { STACK = 256 * 1024, DEEP = SCALED(1000000), NESTED = SCALED(100000) };

static char keys[8];
static lctx *all[DEEP];

static void count_call(lctx_after *after, void *counter)
{
    (void)after;
    ++*(int *)counter;
}

static void make_chain(void)
{
    for (int i = 0; i < DEEP; i++)
        all[i] = lctx_with_cancel(i ? all[i - 1] : lctx_background());
}

static bool all_ended(size_t n, lctx_err_t err, const char *cause)
{
    for (size_t i = 0; i < n; i++)
        if (!ended_as(all[i], err, cause))
            return false;
    return true;
}

TEST(a_chain_is_canceled_from_the_top)
{
    make_chain();
    CHECK(stats_now().live == DEEP);
    cancel_with(all[0], "why");
    CHECK(all_ended(DEEP, LCTX_CANCELED, "why") && stats_now().live == 0);
    unref_all(all, DEEP);
}

TEST(a_chain_is_canceled_from_the_bottom)
{
    make_chain();
    for (int i = DEEP; i-- > 0;)
        lctx_cancel(all[i]);
    CHECK(all_ended(DEEP, LCTX_CANCELED, NULL));
    for (int i = DEEP; i-- > 0;)
        lctx_unref(all[i]);
}

TEST(a_live_chain_is_freed_by_its_last_reference)
{
    make_chain();
    unref_all(all, DEEP - 1);
    CHECK(stats_now().live == DEEP);
    lctx_unref(all[DEEP - 1]);
    CHECK(stats_now().contexts == 0);
}

TEST(a_chain_that_only_a_callback_holds_ends_and_goes)
{
    int count = 0;
    make_chain();
    lctx_after_free(lctx_after_func(all[DEEP - 1], count_call, &count));
    for (int i = 1; i < DEEP; i++)
        lctx_unref(all[i]);
    CHECK(stats_now().live == DEEP);
    lctx_cancel(all[0]);
    CHECK(count == 1 && stats_now().contexts == 1);
    lctx_unref(all[0]);
}

TEST(a_chain_of_callbacks_is_run)
{
    int count = 0;
    make_chain();
    for (int i = 0; i < DEEP; i++)
        lctx_after_free(lctx_after_func(all[i], count_call, &count));
    for (int i = 1; i < DEEP; i++)
        lctx_unref(all[i]);
    lctx_cancel(all[0]);
    CHECK(count == DEEP);
    lctx_unref(all[0]);
}

TEST(a_parent_of_a_million_is_canceled)
{
    lctx *parent = lctx_with_cancel(lctx_background());
    for (int i = 0; i < DEEP; i++)
        all[i] = lctx_with_cancel(parent);
    cancel_with(parent, "why");
    CHECK(all_ended(DEEP, LCTX_CANCELED, "why"));
    lctx_unref(parent);
    unref_all(all, DEEP);
}

TEST(a_parent_of_a_million_sees_them_come_and_go)
{
    lctx *parent = lctx_with_timeout(lctx_background(), 3600, NULL);
    for (int i = 0; i < DEEP; i++)
        all[i] = lctx_with_timeout(parent, 1800, NULL);
    CHECK(stats_now().timers == DEEP + 1);
    for (int i = 0; i < DEEP; i += 2)
        lctx_cancel(all[i]);
    unref_all(all, DEEP);
    CHECK(stats_now().contexts == 1 && stats_now().timers == 1);
    lctx_unref(parent);
}

TEST(a_chain_of_values_is_searched)
{
    lctx *top = lctx_with_value(lctx_background(), &keys[7], of_string("top"));
    lctx_any any;
    for (int i = 0; i < DEEP; i++)
        all[i] = lctx_with_value(i ? all[i - 1] : top, &keys[i % 7], of_integer(i));
    for (int i = DEEP - 1; i > 7; i -= 97) {
        CHECK(value_is(all[i], &keys[7], "top"));
        for (int j = i - 6; j <= i; j++)
            CHECK(lctx_value(all[i], &keys[j % 7], &any) && any.as.integer == j);
    }
    CHECK(lctx_err(all[DEEP - 1]) == LCTX_LIVE && !lctx_can_end(all[DEEP - 1]));
    lctx_unref(top);
    unref_all(all, DEEP);
}

TEST(a_chain_of_every_kind_goes_all_together)
{
    static const lctx_methods no_methods;
    for (int i = 0; i < DEEP; i++) {
        lctx *parent = i ? all[i - 1] : lctx_background();
        all[i] = i % 5 == 0   ? lctx_with_cancel(parent)
                 : i % 5 == 1 ? lctx_with_value(parent, &keys[0], of_integer(i))
                 : i % 5 == 2 ? lctx_merge(1, &parent)
                 : i % 5 == 3 ? lctx_with_timeout(parent, 3600, NULL)
                              : lctx_custom(parent, &no_methods, NULL);
    }
    lctx_cancel(all[0]);
    CHECK(all_ended(DEEP, LCTX_CANCELED, NULL));
    unref_all(all, DEEP);
}

TEST(merges_nested_in_each_other_end)
{
    lctx *other = lctx_with_cancel(lctx_background()), *first = lctx_with_cancel(lctx_background());
    for (int i = 0; i < NESTED; i++)
        all[i] = lctx_merge(2, (lctx *[]){other, i ? all[i - 1] : first});
    cancel_with(first, "why");
    CHECK(all_ended(NESTED, LCTX_CANCELED, "why") && lctx_err(other) == LCTX_LIVE);
    unref_all(all, NESTED);
    lctx_unref(first);
    lctx_unref(other);
}

TEST(nested_merges_are_freed_by_the_last_reference)
{
    lctx *first = lctx_with_value(lctx_background(), &keys[0], of_string("v")), *last = lctx_ref(first);
    for (int i = 0; i < NESTED; i++) {
        lctx *merge = lctx_merge(3, (lctx *[]){last, first, last});
        lctx_unref(last);
        last = merge;
    }
    CHECK(value_is(last, &keys[0], "v") && stats_now().live == NESTED + 1);
    lctx_unref(first);
    lctx_unref(last);
}

/* Each has the two before it as parents: the walk comes to each of them twice. */
TEST(merges_interwoven_with_each_other_end)
{
    all[0] = lctx_with_cancel(lctx_background());
    all[1] = lctx_with_cancel(all[0]);
    for (int i = 2; i < NESTED; i++)
        all[i] = lctx_merge(2, (lctx *[]){all[i - 2], all[i - 1]});
    cancel_with(all[0], "why");
    CHECK(all_ended(NESTED, LCTX_CANCELED, "why"));
    unref_all(all, NESTED);
}

static const check_case cases[] = {
    CASE(a_chain_is_canceled_from_the_top),
    CASE(a_chain_is_canceled_from_the_bottom),
    CASE(a_live_chain_is_freed_by_its_last_reference),
    CASE(a_chain_that_only_a_callback_holds_ends_and_goes),
    CASE(a_chain_of_callbacks_is_run),
    CASE(a_parent_of_a_million_is_canceled),
    CASE(a_parent_of_a_million_sees_them_come_and_go),
    CASE(a_chain_of_values_is_searched),
    CASE(a_chain_of_every_kind_goes_all_together),
    CASE(merges_nested_in_each_other_end),
    CASE(nested_merges_are_freed_by_the_last_reference),
    CASE(merges_interwoven_with_each_other_end),
};

static int arguments, result;
static char **argument;

static void *run_cases(void *unused)
{
    int argc = arguments;
    char **argv = argument;
    (void)unused;
    result = CHECK_MAIN(cases);
    return NULL;
}

int main(int argc, char **argv)
{
    const struct rlimit limit = {STACK, STACK};
    pthread_attr_t small;
    pthread_t thread;
    arguments = argc;
    argument = argv;
    setrlimit(RLIMIT_STACK, &limit); /* for the timer thread too */
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK);
    if (pthread_create(&thread, &small, run_cases, NULL) != 0) {
        printf("0 passed, 1 failed\n");
        return 1;
    }
    pthread_join(thread, NULL);
    pthread_attr_destroy(&small);
    return result;
}
