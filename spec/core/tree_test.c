/* SPDX-License-Identifier: MIT
 *
 * The tree: linking, ending, order, references, callbacks; without_cancel, merge and custom contexts.
 */
#include <errno.h>
#include <math.h>

#include "../../csrc/core/node.h"
#include "values.h"

static char user_key;
static const lctx_methods no_methods;

/* How many items hang in the list of a scope. */
static size_t items_of(lctx *ctx)
{
    lctx_link *first = ((lctx_scope *)ctx)->items, *link = first;
    size_t count = 0;
    if (first)
        do
            count++;
        while ((link = link->next) != first);
    return count;
}

static void count_call(lctx_after *after, void *counter)
{
    (void)after;
    ++*(int *)counter;
}

/* ---- Roots, arguments ------------------------------------------------------------------------------------ */

static void check_never_ends(lctx *ctx)
{
    double time;
    lctx_any any;
    CHECK(lctx_err(ctx) == LCTX_LIVE);
    CHECK(!lctx_can_end(ctx));
    CHECK(!lctx_deadline(ctx, &time));
    CHECK(lctx_remaining(ctx) == INFINITY);
    CHECK(!lctx_cause(ctx, &any));
    CHECK(!lctx_wait(ctx, 0));
}

TEST(the_roots_never_end)
{
    lctx *roots[] = {lctx_background(), lctx_todo()};
    CHECK(roots[0] != roots[1]);
    CHECK(roots[0] == lctx_background() && roots[1] == lctx_todo());
    for (int i = 0; i < 2; i++) {
        lctx_any any;
        lctx_cancel(roots[i]);
        CHECK(lctx_cancel_cause(roots[i], NULL) == 0);
        check_never_ends(roots[i]);
        CHECK(!lctx_value(roots[i], &user_key, &any));
    }
}

TEST(the_roots_need_no_reference_counting)
{
    lctx_unref(lctx_background());
    lctx_unref(lctx_todo());
    CHECK(lctx_ref(lctx_background()) == lctx_background());
    lctx *child = lctx_with_cancel(lctx_background());
    lctx_unref(lctx_background());
    CHECK(lctx_err(child) == LCTX_LIVE);
    lctx_unref(child);
    lctx_unref(NULL);
}

TEST(invalid_arguments_are_refused)
{
    lctx *bg = lctx_background(), *none[] = {bg, NULL};
    const lctx_entry null_key = {NULL, {.type = LCTX_NIL}};
    int counter = 0;
#define REFUSED(call) (errno = 0, CHECK((call) == NULL), CHECK(errno == EINVAL))
    REFUSED(lctx_with_cancel(NULL));
    REFUSED(lctx_with_deadline(NULL, 1, NULL));
    REFUSED(lctx_with_deadline(bg, NAN, NULL));
    REFUSED(lctx_with_timeout(NULL, 1, NULL));
    REFUSED(lctx_with_timeout(bg, NAN, NULL));
    REFUSED(lctx_with_value(NULL, &user_key, of_integer(1)));
    REFUSED(lctx_with_value(bg, NULL, of_integer(1)));
    REFUSED(lctx_with_values(NULL, 0, NULL));
    REFUSED(lctx_with_values(bg, 1, &null_key));
    REFUSED(lctx_without_cancel(NULL));
    REFUSED(lctx_merge(0, none));
    REFUSED(lctx_merge(2, none));
    REFUSED(lctx_custom(bg, NULL, NULL));
    REFUSED(lctx_after_func(NULL, count_call, &counter));
    REFUSED(lctx_after_func(bg, NULL, &counter));
#undef REFUSED
}

TEST(errors_have_their_texts)
{
    CHECK(strcmp(lctx_strerror(LCTX_LIVE), "") == 0);
    CHECK(strcmp(lctx_strerror(LCTX_CANCELED), "context canceled") == 0);
    CHECK(strcmp(lctx_strerror(LCTX_DEADLINE_EXCEEDED), "context deadline exceeded") == 0);
}

/* ---- Ending ---------------------------------------------------------------------------------------------- */

TEST(a_cancel_ends_everything_below_before_it_returns)
{
    lctx *parent = lctx_with_cancel(lctx_background());
    lctx *child = lctx_with_cancel(parent), *value = lctx_with_value(parent, &user_key, of_integer(1));
    lctx *timed = lctx_with_timeout(value, 3600, NULL), *custom = lctx_custom(child, &no_methods, NULL);
    lctx *wrapped = lctx_with_cancel(custom);
    lctx *all[] = {parent, child, value, timed, custom, wrapped};
    int called = 0;
    lctx_after *after = lctx_after_func(parent, count_call, &called);
    for (int i = 0; i < 6; i++)
        CHECK(lctx_err(all[i]) == LCTX_LIVE && lctx_can_end(all[i]) && cause_is(all[i], NULL));
    CHECK(items_of(parent) == 3); /* a value is none: its timed child hangs here */
    CHECK(stats_now().contexts == 6 && stats_now().live == 6 && stats_now().timers == 1 && called == 0);

    lctx_cancel(parent);
    for (int i = 0; i < 6; i++)
        CHECK(ended_as(all[i], LCTX_CANCELED, NULL) && lctx_wait(all[i], INFINITY));
    CHECK(items_of(parent) == 0 && called == 1);
    CHECK(stats_now().contexts == 6 && stats_now().live == 0 && stats_now().timers == 0);

    lctx *later = lctx_with_value(parent, &user_key, of_integer(2));
    CHECK(lctx_err(later) == LCTX_CANCELED);
    lctx_unref(later);
    lctx_after_free(after);
    unref_all(all, 6);
}

TEST(a_child_that_ends_leaves_everything_else_alone)
{
    lctx *roots[] = {lctx_background(), lctx_with_cancel(lctx_background())};
    for (int i = 0; i < 2; i++) {
        lctx *child = lctx_with_cancel(roots[i]), *sibling = lctx_with_cancel(roots[i]);
        lctx_cancel(child);
        CHECK(lctx_err(child) == LCTX_CANCELED);
        CHECK(lctx_err(roots[i]) == LCTX_LIVE && lctx_err(sibling) == LCTX_LIVE);
        lctx_unref(child);
        lctx_unref(sibling);
    }
    lctx_unref(roots[1]);
}

TEST(what_has_ended_or_was_dropped_stays_in_no_list)
{
    lctx *parent = lctx_with_cancel(lctx_background());
    lctx *made[] = {lctx_with_cancel(parent), lctx_with_timeout(parent, 3600, NULL), lctx_merge(1, &parent),
                    lctx_custom(parent, &no_methods, NULL)};
    CHECK(items_of(parent) == 4);
    for (size_t i = 0; i < 4; i++) {
        lctx_cancel(made[i]);
        CHECK(items_of(parent) == 3 - i);
    }
    CHECK(stats_now().timers == 0);
    unref_all(made, 4);

    int called = 0;
    lctx_after *after = lctx_after_func(parent, count_call, &called);
    CHECK(items_of(parent) == 1 && stats_now().callbacks == 1);
    CHECK(lctx_after_stop(after));
    CHECK(items_of(parent) == 0 && stats_now().callbacks == 0);
    lctx_after_free(after);

    lctx_unref(lctx_with_timeout(parent, 3600, NULL));
    CHECK(items_of(parent) == 0 && stats_now().timers == 0 && stats_now().contexts == 1);
    lctx_unref(parent);
    CHECK(called == 0);
}

/* The constructors that take one parent. */
static lctx *make_child(int which, lctx *parent)
{
    switch (which) {
    case 0:
        return lctx_with_cancel(parent);
    case 1:
        return lctx_with_timeout(parent, 3600, NULL);
    case 2:
        return lctx_with_timeout(parent, -1, &(lctx_any){.type = LCTX_BOOLEAN});
    case 3:
        return lctx_with_deadline(parent, 1, NULL);
    case 4:
        return lctx_with_value(parent, &user_key, of_integer(1));
    case 5:
        return lctx_with_values(parent, 0, NULL);
    case 6:
        return lctx_merge(2, (lctx *[]){lctx_background(), parent});
    default:
        return lctx_custom(parent, &no_methods, NULL);
    }
}

TEST(under_an_ended_parent_everything_is_born_ended)
{
    const lctx_any late = of_string("late");
    lctx *canceled = lctx_with_cancel(lctx_background()), *expired = lctx_with_timeout(lctx_background(), 0, &late);
    cancel_with(canceled, "why");
    for (int i = 0; i < 8; i++) {
        lctx *child = make_child(i, canceled), *other = make_child(i, expired);
        CHECK(ended_as(child, LCTX_CANCELED, "why"));
        CHECK(ended_as(other, LCTX_DEADLINE_EXCEEDED, "late"));
        lctx_unref(child);
        lctx_unref(other);
    }
    CHECK(stats_now().timers == 0 && stats_now().live == 0);
    lctx_unref(canceled);
    lctx_unref(expired);
}

TEST(the_first_end_wins)
{
    lctx *ctx = lctx_with_cancel(lctx_background());
    cancel_with(ctx, "first");
    cancel_with(ctx, "second");
    lctx_cancel(ctx);
    CHECK(ended_as(ctx, LCTX_CANCELED, "first"));
    lctx_unref(ctx);
    ctx = lctx_with_timeout(lctx_background(), 0, NULL);
    cancel_with(ctx, "too late");
    CHECK(ended_as(ctx, LCTX_DEADLINE_EXCEEDED, NULL));
    lctx_unref(ctx);
}

TEST(a_value_context_cannot_be_ended_by_itself)
{
    lctx *parent = lctx_with_cancel(lctx_background());
    lctx *value = lctx_with_value(parent, &user_key, of_integer(1)), *without = lctx_without_cancel(parent);
    lctx_cancel(value);
    cancel_with(value, "why");
    lctx_cancel(without);
    cancel_with(without, "why");
    CHECK(lctx_err(value) == LCTX_LIVE && lctx_err(parent) == LCTX_LIVE && lctx_err(without) == LCTX_LIVE);
    lctx_unref(without);
    lctx_unref(value);
    lctx_unref(parent);
}

TEST(causes_of_every_type_are_kept)
{
    const lctx_any causes[] = {of_boolean(false),
                               of_integer(0),
                               of_pointer(NULL, NULL),
                               of_string(""),
                               {.type = LCTX_NUMBER, .as.number = 0.5}};
    for (size_t i = 0; i < sizeof causes / sizeof *causes; i++) {
        lctx *ctx = lctx_with_cancel(lctx_background());
        lctx_any cause;
        CHECK(lctx_cancel_cause(ctx, &causes[i]) == 0);
        CHECK(lctx_cause(ctx, &cause) && cause.type == causes[i].type);
        lctx_unref(ctx);
    }
    const lctx_any nil = {.type = LCTX_NIL};
    lctx *ctx = lctx_with_cancel(lctx_background());
    CHECK(lctx_cancel_cause(ctx, &nil) == 0 && ended_as(ctx, LCTX_CANCELED, NULL));
    lctx_unref(ctx);
}

TEST(a_cause_is_copied_and_dropped_with_the_last_context)
{
    char text[] = "why";
    lctx *parent = lctx_with_cancel(lctx_background());
    cancel_with(parent, text);
    text[0] = 'x';
    CHECK(cause_is(parent, "why"));
    lctx_unref(parent);

    int drops = 0;
    const lctx_any pointer = of_pointer(&drops, count_drop);
    parent = lctx_with_cancel(lctx_background());
    lctx *child = lctx_with_cancel(parent);
    CHECK(lctx_cancel_cause(parent, &pointer) == 0);
    lctx *born_ended = lctx_with_cancel(parent);
    lctx_unref(parent);
    lctx_unref(child);
    CHECK(drops == 0);
    lctx_unref(born_ended);
    CHECK(drops == 1);
}

/* Who passes a pointer with a `drop` must be able to rely on it, whatever became of the cause. */
TEST(a_cause_that_is_never_used_is_dropped_all_the_same)
{
    int drops = 0;
    const lctx_any cause = of_pointer(&drops, count_drop);
    lctx *parent = lctx_with_timeout(lctx_background(), 3600, NULL);
    lctx_unref(lctx_with_timeout(lctx_background(), 3600, &cause));
    CHECK(drops == 1);
    lctx_unref(lctx_with_timeout(parent, 7200, &cause)); /* the parent's deadline is sooner */
    CHECK(drops == 2);
    lctx_unref(lctx_with_timeout(lctx_background(), INFINITY, &cause));
    CHECK(drops == 3);
    lctx_unref(lctx_with_deadline(lctx_background(), INFINITY, &cause));
    CHECK(drops == 4);
    lctx_cancel(parent);
    CHECK(lctx_cancel_cause(parent, &cause) == 0);
    CHECK(drops == 5);
    lctx_unref(parent);
}

/* ---- The table of causes --------------------------------------------------------------------------------- */

/* What a row does, a letter a step. Each context is made from the one before, the first from background:
 *   c with_cancel   t/T with_timeout 0 without/with the cause "slow"   l/L the same with an hour
 *   v with_value    w without_cancel   x custom   m merge with todo
 *   p/P cancel the first without/with the cause "parent"   k/K cancel the last without/with "child" */
static const struct cause_row {
    const char *steps;
    lctx_err_t err;
    const char *cause;
} cause_table[] = {
    {"", LCTX_LIVE, NULL},
    {"c", LCTX_LIVE, NULL},
    {"cp", LCTX_CANCELED, NULL},
    {"cP", LCTX_CANCELED, "parent"},
    {"cpP", LCTX_CANCELED, NULL},
    {"ccPK", LCTX_CANCELED, "parent"},
    {"ccKP", LCTX_CANCELED, "child"},
    {"ccPk", LCTX_CANCELED, "parent"},
    {"cckP", LCTX_CANCELED, NULL},
    {"ccpK", LCTX_CANCELED, NULL},
    {"ccKp", LCTX_CANCELED, "child"},
    {"t", LCTX_DEADLINE_EXCEEDED, NULL},
    {"lk", LCTX_CANCELED, NULL},
    {"T", LCTX_DEADLINE_EXCEEDED, "slow"},
    {"Lk", LCTX_CANCELED, NULL},
    {"LK", LCTX_CANCELED, "child"},
    {"TcK", LCTX_DEADLINE_EXCEEDED, "slow"},
    {"LcK", LCTX_CANCELED, "child"},
    {"cPT", LCTX_CANCELED, "parent"},
    {"w", LCTX_LIVE, NULL},
    {"cPw", LCTX_LIVE, NULL},
    {"cwP", LCTX_LIVE, NULL},
    {"Tw", LCTX_LIVE, NULL},
    {"Twc", LCTX_LIVE, NULL},
    {"Twt", LCTX_DEADLINE_EXCEEDED, NULL},
    {"cPwcK", LCTX_CANCELED, "child"},
    {"cvP", LCTX_CANCELED, "parent"},
    {"cPv", LCTX_CANCELED, "parent"},
    {"Tv", LCTX_DEADLINE_EXCEEDED, "slow"},
    {"cmP", LCTX_CANCELED, "parent"},
    {"cmKP", LCTX_CANCELED, "child"},
    {"cmcPK", LCTX_CANCELED, "parent"},
    {"Tm", LCTX_DEADLINE_EXCEEDED, "slow"},
    {"cxp", LCTX_CANCELED, NULL},
    {"cxP", LCTX_CANCELED, "parent"},
    {"cxcPK", LCTX_CANCELED, "parent"},
    {"cxcKP", LCTX_CANCELED, "child"},
    {"Txvc", LCTX_DEADLINE_EXCEEDED, "slow"},
};

static lctx *make_step(char step, lctx *last)
{
    const lctx_any slow = of_string("slow");
    switch (step) {
    case 'c':
        return lctx_with_cancel(last);
    case 't':
    case 'T':
        return lctx_with_timeout(last, 0, step == 'T' ? &slow : NULL);
    case 'l':
    case 'L':
        return lctx_with_timeout(last, 3600, step == 'L' ? &slow : NULL);
    case 'v':
        return lctx_with_value(last, &user_key, slow);
    case 'w':
        return lctx_without_cancel(last);
    case 'x':
        return lctx_custom(last, &no_methods, NULL);
    case 'm':
        return lctx_merge(2, (lctx *[]){lctx_todo(), last});
    default:
        return NULL;
    }
}

static void check_cause_row(const struct cause_row *row)
{
    lctx *made[8] = {lctx_background()};
    size_t count = 0;
    for (const char *step = row->steps; *step; step++) {
        lctx *last = made[count ? count - 1 : 0];
        lctx *target = *step == 'p' || *step == 'P' ? made[0] : last;
        if (*step == 'p' || *step == 'k')
            lctx_cancel(target);
        else if (*step == 'P' || *step == 'K')
            cancel_with(target, *step == 'P' ? "parent" : "child");
        else
            made[count++] = make_step(*step, last);
    }
    if (!CHECK(ended_as(made[count ? count - 1 : 0], row->err, row->cause)))
        fprintf(stderr, "  in row \"%s\"\n", row->steps);
    unref_all(made, count);
}

TEST(error_and_cause_are_those_of_the_first_end_above)
{
    for (size_t i = 0; i < sizeof cause_table / sizeof *cause_table; i++)
        check_cause_row(&cause_table[i]);
}

/* ---- Order ----------------------------------------------------------------------------------------------- */

static int called[32], calls;

typedef struct noted {
    int id;
    lctx *watched; /* must have ended when the callback runs */
} noted;

static void note_call(lctx_after *after, void *arg)
{
    const noted *note = arg;
    (void)after;
    CHECK(!note->watched || lctx_err(note->watched) != LCTX_LIVE);
    called[calls++] = note->id;
}

static int place_of(int id)
{
    for (int i = 0; i < calls; i++)
        if (called[i] == id)
            return i;
    return -1;
}

TEST(parents_end_before_children_and_those_in_the_order_of_creation)
{
    enum { ROOT, A, B, C, A1, A2, B1, NODES };
    static const int parent_of[] = {-1, ROOT, ROOT, ROOT, A, A, B}, scrambled[] = {A2, C, ROOT, B1, B, A1, A};
    lctx *ctx[NODES];
    noted notes[NODES];
    lctx_after *after[NODES];
    for (int i = 0; i < NODES; i++)
        ctx[i] = lctx_with_cancel(i ? ctx[parent_of[i]] : lctx_background());
    for (int i = 0; i < NODES; i++) {
        int id = scrambled[i];
        notes[i] = (noted){id, ctx[NODES - 1]};
        after[i] = lctx_after_func(ctx[id], note_call, &notes[i]);
    }
    calls = 0;
    lctx_cancel(ctx[ROOT]);
    CHECK(calls == NODES);
    for (int i = 1; i < NODES; i++) {
        CHECK(place_of(parent_of[i]) < place_of(i));
        if (parent_of[i] == parent_of[i - 1])
            CHECK(place_of(i - 1) < place_of(i));
    }
    for (int i = 0; i < NODES; i++)
        lctx_after_free(after[i]);
    unref_all(ctx, NODES);
}

TEST(callbacks_of_one_context_run_in_the_order_of_registration)
{
    lctx *ctx = lctx_with_cancel(lctx_background()), *children[3];
    noted notes[9];
    lctx_after *after[9];
    for (int i = 0; i < 9; i++) {
        if (i % 3 == 0)
            children[i / 3] = lctx_with_cancel(ctx); /* among them in the list */
        notes[i] = (noted){i, children[i / 3]};
        after[i] = lctx_after_func(ctx, note_call, &notes[i]);
    }
    CHECK(lctx_after_stop(after[4]));
    calls = 0;
    lctx_cancel(ctx);
    CHECK(calls == 8);
    for (int i = 1; i < calls; i++)
        CHECK(called[i - 1] < called[i]);
    for (int i = 0; i < 9; i++)
        lctx_after_free(after[i]);
    unref_all(children, 3);
    lctx_unref(ctx);
}

/* ---- Callbacks ------------------------------------------------------------------------------------------- */

TEST(a_callback_runs_once_after_the_end)
{
    for (int timed = 0; timed < 2; timed++) {
        lctx *ctx = timed ? lctx_with_timeout(lctx_background(), 3600, NULL) : lctx_with_cancel(lctx_background());
        lctx *value = lctx_with_value(ctx, &user_key, of_integer(1));
        int count = 0;
        lctx_after *after = lctx_after_func(value, count_call, &count);
        CHECK(count == 0);
        lctx_cancel(ctx);
        CHECK(count == 1);
        lctx_cancel(ctx);
        CHECK(count == 1 && !lctx_after_stop(after) && !lctx_after_stop(after));
        lctx_after_free(after);
        lctx_unref(value);
        lctx_unref(ctx);
    }
}

TEST(a_callback_on_an_ended_context_runs_at_once)
{
    lctx *ctx = lctx_with_timeout(lctx_background(), 0, NULL);
    int count = 0;
    lctx_after *after = lctx_after_func(ctx, count_call, &count);
    CHECK(count == 1 && !lctx_after_stop(after) && stats_now().callbacks == 0);
    lctx_after_free(after);
    lctx_unref(ctx);
}

TEST(a_stopped_callback_never_runs)
{
    lctx *contexts[] = {lctx_background(), lctx_with_cancel(lctx_background())};
    int count = 0;
    for (int i = 0; i < 2; i++) {
        lctx_after *after = lctx_after_func(contexts[i], count_call, &count);
        CHECK(lctx_after_stop(after));
        CHECK(!lctx_after_stop(after));
        lctx_cancel(contexts[i]);
        CHECK(!lctx_after_stop(after) && count == 0);
        lctx_after_free(after);
    }
    lctx_after_free(NULL);
    lctx_unref(contexts[1]);
}

TEST(a_freed_handle_leaves_the_registration_in_force)
{
    lctx *ctx = lctx_with_cancel(lctx_background());
    int count = 0;
    lctx_after_free(lctx_after_func(ctx, count_call, &count));
    lctx_after_free(lctx_after_func(lctx_background(), count_call, &count));
    lctx_cancel(ctx);
    CHECK(count == 1);
    lctx_unref(ctx);
}

typedef struct busy_callback {
    lctx *ctx, *other;
    lctx_after *self, *later;
    int runs, later_runs;
} busy_callback;

static void do_everything(lctx_after *after, void *arg)
{
    busy_callback *busy = arg;
    int count = 0;
    busy->runs++;
    CHECK(after == busy->self && !lctx_after_stop(after));
    CHECK(!lctx_after_stop(busy->later)); /* decided when the context ended, though it has not run yet */
    CHECK(busy->later_runs == 0);
    lctx_after_free(after);
    lctx_cancel(busy->ctx);
    lctx *child = lctx_with_cancel(busy->ctx);
    CHECK(lctx_err(child) == LCTX_CANCELED && lctx_wait(child, INFINITY));
    lctx_after_free(lctx_after_func(child, count_call, &count));
    CHECK(count == 1);
    lctx_after_free(lctx_after_func(busy->other, count_call, &count));
    lctx_cancel(busy->other);
    CHECK(count == 2);
    lctx_unref(child);
    lctx_notifier_free(lctx_notifier_new(busy->ctx));
    stats_now();
}

TEST(a_callback_may_use_every_function)
{
    busy_callback busy = {.ctx = lctx_with_cancel(lctx_background()), .other = lctx_with_cancel(lctx_background())};
    busy.self = lctx_after_func(busy.ctx, do_everything, &busy);
    busy.later = lctx_after_func(busy.ctx, count_call, &busy.later_runs);
    lctx_cancel(busy.ctx);
    CHECK(busy.runs == 1 && busy.later_runs == 1);
    lctx_after_free(busy.later);
    lctx_unref(busy.ctx);
    lctx_unref(busy.other);
}

TEST(a_callback_keeps_a_context_that_can_still_end_by_itself)
{
    lctx *parent = lctx_with_cancel(lctx_background()), *child = lctx_with_cancel(parent);
    int count = 0;
    lctx_after_free(lctx_after_func(child, count_call, &count));
    lctx_unref(child);
    CHECK(count == 0 && stats_now().contexts == 2);
    lctx_cancel(parent);
    CHECK(count == 1);
    CHECK(stats_now().contexts == 1);
    lctx_unref(parent);
}

TEST(a_stopped_callback_keeps_nothing)
{
    lctx *parent = lctx_with_cancel(lctx_background()), *child = lctx_with_timeout(parent, 3600, NULL);
    int count = 0;
    lctx_after *after = lctx_after_func(child, count_call, &count);
    lctx_unref(child);
    lctx_unref(parent);
    CHECK(stats_now().contexts == 2 && stats_now().live == 2);
    CHECK(lctx_after_stop(after));
    CHECK(stats_now().contexts == 0);
    lctx_after_free(after);
}

TEST(the_last_reference_ends_a_context_and_runs_its_callbacks)
{
    lctx *ctx = lctx_with_cancel(lctx_background()), *child = lctx_with_cancel(ctx);
    int count = 0;
    lctx_after_free(lctx_after_func(ctx, count_call, &count));
    lctx_ref(ctx);
    lctx_unref(ctx);
    lctx_unref(ctx);
    CHECK(count == 0 && lctx_err(child) == LCTX_LIVE); /* the child holds it */
    lctx_unref(child);
    CHECK(count == 1 && stats_now().contexts == 0);
}

/* Nothing can end these but their last reference: a registration must not stand in its way. */
TEST(a_callback_does_not_keep_what_hangs_below_a_custom_context_that_never_ends)
{
    lctx *custom = lctx_custom(NULL, &no_methods, NULL), *child = lctx_with_cancel(custom);
    int count = 0;
    lctx_after *after = lctx_after_func(child, count_call, &count);
    lctx_unref(child);
    CHECK(count == 1);
    lctx_after_stop(after);
    lctx_after_free(after);
    after = lctx_after_func(custom, count_call, &count);
    lctx_unref(custom);
    CHECK(stats_now().contexts == 0);
    lctx_after_stop(after);
    lctx_after_free(after);
}

/* ---- References ------------------------------------------------------------------------------------------ */

TEST(a_child_holds_its_ancestors)
{
    lctx *ctx = lctx_with_cancel(lctx_background()), *first = lctx_ref(ctx);
    for (int i = 0; i < 100; i++) {
        lctx *child = make_child(i % 2 ? 4 : i % 3 ? 0 : 6, ctx);
        lctx_unref(ctx);
        ctx = child;
    }
    CHECK(stats_now().contexts == 101 && lctx_err(ctx) == LCTX_LIVE);
    lctx_cancel(first);
    CHECK(lctx_err(ctx) == LCTX_CANCELED);
    lctx_unref(first);
    CHECK(stats_now().contexts == 101);
    lctx_unref(ctx);
    CHECK(stats_now().contexts == 0);
}

TEST(live_counts_value_contexts_with_what_they_show)
{
    lctx *parent = lctx_with_cancel(lctx_background());
    lctx *values[] = {lctx_with_value(parent, &user_key, of_integer(1)),
                      lctx_with_value(lctx_background(), &user_key, of_integer(1)), lctx_without_cancel(parent)};
    CHECK(stats_now().live == 4);
    lctx_unref(values[0]);
    CHECK(stats_now().live == 3);
    values[0] = lctx_with_value(parent, &user_key, of_integer(1));
    lctx_cancel(parent);
    CHECK(stats_now().live == 2 && stats_now().contexts == 4);
    unref_all(values, 3);
    lctx_unref(parent);
}

/* ---- Random layers --------------------------------------------------------------------------------------- */

static void check_random_layers(uint64_t seed)
{
    enum { LAYERS = 40 };
    static char keys[LAYERS];
    lctx *layers[LAYERS], *ctx = lctx_background();
    int can_end[LAYERS], count = 0;
    for (int i = 0; i < LAYERS; i++) {
        int kind = (int)(check_random(&seed) % 3);
        if (kind == 0)
            ctx = lctx_with_value(ctx, &keys[i], of_integer(i));
        else
            ctx = kind == 1 ? lctx_with_cancel(ctx) : lctx_with_timeout(ctx, 3600, NULL);
        layers[i] = ctx;
        if (kind != 0)
            can_end[count++] = i;
    }
    CHECK(lctx_err(ctx) == LCTX_LIVE);
    if (count > 0) {
        int chosen = can_end[check_random(&seed) % (uint64_t)count];
        lctx_cancel(layers[chosen]);
        for (int i = 0; i < LAYERS; i++)
            CHECK(lctx_err(layers[i]) == (i >= chosen ? LCTX_CANCELED : LCTX_LIVE));
    }
    for (int i = 0; i < LAYERS; i++) {
        lctx_any any;
        if (lctx_value(ctx, &keys[i], &any))
            CHECK(any.as.integer == i);
        else
            CHECK(!lctx_value(layers[i], &keys[i], &any));
    }
    unref_all(layers, LAYERS);
}

TEST(a_cancel_of_any_layer_ends_those_below_and_no_value)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        int before = atomic_load(&check_failures);
        check_random_layers(seed);
        if (atomic_load(&check_failures) != before)
            fprintf(stderr, "  with seed %d\n", (int)seed);
    }
}

/* ---- Without cancel -------------------------------------------------------------------------------------- */

TEST(without_cancel_is_cut_off_from_every_end_above)
{
    lctx *parent = lctx_with_timeout(lctx_background(), 3600, NULL);
    lctx *value = lctx_with_value(parent, &user_key, of_string("alice"));
    lctx *without = lctx_without_cancel(value), *below = lctx_with_cancel(without);
    int count = 0;
    lctx_after *after = lctx_after_func(without, count_call, &count);
    double time;
    lctx_cancel(parent);
    check_never_ends(without);
    CHECK(value_is(without, &user_key, "alice") && value_is(below, &user_key, "alice"));
    CHECK(lctx_err(below) == LCTX_LIVE && lctx_can_end(below) && !lctx_deadline(below, &time));
    CHECK(count == 0 && lctx_after_stop(after));
    lctx_cancel(below);
    CHECK(lctx_err(below) == LCTX_CANCELED);
    lctx_after_free(after);
    lctx *all[] = {parent, value, without, below};
    unref_all(all, 4);
}

/* ---- Merge ----------------------------------------------------------------------------------------------- */

TEST(a_merge_ends_with_the_first_of_its_parents)
{
    for (int which = 0; which < 3; which++) {
        lctx *parents[3];
        for (int i = 0; i < 3; i++)
            parents[i] = lctx_with_cancel(lctx_background());
        lctx *merge = lctx_merge(3, parents), *child = lctx_with_cancel(merge);
        CHECK(lctx_err(merge) == LCTX_LIVE && lctx_can_end(merge));
        cancel_with(parents[which], "first");
        CHECK(ended_as(merge, LCTX_CANCELED, "first") && ended_as(child, LCTX_CANCELED, "first"));
        for (int i = 0; i < 3; i++) {
            CHECK((lctx_err(parents[i]) != LCTX_LIVE) == (i == which) && items_of(parents[i]) == 0);
            cancel_with(parents[i], "later");
        }
        CHECK(cause_is(merge, "first"));
        unref_all(parents, 3);
        lctx_unref(merge);
        lctx_unref(child);
    }
}

TEST(of_parents_that_had_ended_the_first_in_order_counts)
{
    lctx *parents[] = {lctx_with_cancel(lctx_background()), lctx_with_cancel(lctx_background()),
                       lctx_with_timeout(lctx_background(), 0, NULL), lctx_background()};
    cancel_with(parents[1], "second");
    lctx *merge = lctx_merge(4, parents);
    CHECK(ended_as(merge, LCTX_CANCELED, "second") && items_of(parents[0]) == 0);
    lctx *other = lctx_merge(2, (lctx *[]){parents[2], parents[1]});
    CHECK(ended_as(other, LCTX_DEADLINE_EXCEEDED, NULL));
    lctx_unref(merge);
    lctx_unref(other);
    unref_all(parents, 3);
}

TEST(a_cancel_of_a_merge_leaves_its_parents_alone)
{
    lctx *parents[] = {lctx_with_cancel(lctx_background()), lctx_with_cancel(lctx_background())};
    lctx *merge = lctx_merge(2, parents), *other = lctx_merge(2, parents);
    cancel_with(merge, "own");
    CHECK(ended_as(merge, LCTX_CANCELED, "own") && lctx_err(other) == LCTX_LIVE);
    CHECK(lctx_err(parents[0]) == LCTX_LIVE && lctx_err(parents[1]) == LCTX_LIVE);
    CHECK(items_of(parents[0]) == 1 && items_of(parents[1]) == 1);
    lctx_unref(other);
    CHECK(items_of(parents[0]) == 0 && items_of(parents[1]) == 0);
    lctx_unref(merge);
    unref_all(parents, 2);
}

TEST(a_merge_holds_its_parents)
{
    lctx *parents[] = {lctx_with_cancel(lctx_background()),
                       lctx_with_value(lctx_background(), &user_key, of_string("x"))};
    lctx *merge = lctx_merge(2, parents);
    unref_all(parents, 2);
    CHECK(stats_now().contexts == 3 && lctx_err(merge) == LCTX_LIVE && value_is(merge, &user_key, "x"));
    lctx_unref(merge);
}

TEST(a_merge_of_contexts_that_never_end_ends_by_cancel_only)
{
    lctx *merge = lctx_merge(2, (lctx *[]){lctx_background(), lctx_todo()});
    double time;
    CHECK(lctx_err(merge) == LCTX_LIVE && !lctx_deadline(merge, &time));
    int count = 0;
    lctx_after_free(lctx_after_func(merge, count_call, &count));
    lctx_unref(merge);
    CHECK(count == 1);
    merge = lctx_merge(1, (lctx *[]){lctx_background()});
    lctx_cancel(merge);
    CHECK(lctx_err(merge) == LCTX_CANCELED);
    lctx_unref(merge);
}

TEST(a_merge_with_one_parent_twice_ends_with_it)
{
    lctx *parent = lctx_with_cancel(lctx_background());
    lctx *merge = lctx_merge(3, (lctx *[]){parent, lctx_background(), parent});
    CHECK(items_of(parent) == 2);
    cancel_with(parent, "why");
    CHECK(ended_as(merge, LCTX_CANCELED, "why"));
    lctx_unref(merge);
    lctx_unref(parent);
}

TEST(a_merge_below_two_branches_of_one_tree_ends_once)
{
    lctx *root = lctx_with_cancel(lctx_background());
    lctx *branches[] = {lctx_with_cancel(root), lctx_with_timeout(root, 3600, NULL)};
    lctx *merge = lctx_merge(2, branches);
    cancel_with(root, "why");
    CHECK(ended_as(merge, LCTX_CANCELED, "why"));
    lctx_unref(merge);
    unref_all(branches, 2);
    lctx_unref(root);
}

/* The walk comes to the merge twice, and finds it busy the second time: with itself. */
TEST(a_merge_below_two_branches_of_one_tree_ends_what_is_below_it)
{
    lctx *root = lctx_with_cancel(lctx_background());
    lctx *branches[] = {lctx_with_cancel(root), lctx_with_cancel(root)};
    lctx *merge = lctx_merge(2, branches), *child = lctx_with_cancel(merge);
    int count = 0;
    lctx_after_free(lctx_after_func(merge, count_call, &count));
    cancel_with(root, "why");
    CHECK(ended_as(merge, LCTX_CANCELED, "why") && ended_as(child, LCTX_CANCELED, "why") && count == 1);
    lctx_unref(child);
    lctx_unref(merge);
    unref_all(branches, 2);
    lctx_unref(root);
}

TEST(a_merge_with_one_parent_twice_ends_what_is_below_it)
{
    lctx *parent = lctx_with_cancel(lctx_background());
    lctx *merge = lctx_merge(2, (lctx *[]){parent, parent}), *child = lctx_with_cancel(merge);
    lctx *deeper = lctx_merge(3, (lctx *[]){child, merge, parent}), *leaf = lctx_with_cancel(deeper);
    cancel_with(parent, "why");
    CHECK(ended_as(leaf, LCTX_CANCELED, "why"));
    lctx *all[] = {leaf, deeper, child, merge, parent};
    unref_all(all, 5);
}

/* ---- Custom ---------------------------------------------------------------------------------------------- */

static bool tell_deadline(void *self, double *unix_time)
{
    (void)self;
    *unix_time = 12345;
    return true;
}

static bool tell_value(void *self, const void *key, lctx_any *value)
{
    *value = of_string("told");
    return key == &user_key && self != NULL;
}

TEST(a_custom_context_answers_by_its_methods_and_ends_with_its_source)
{
    static const lctx_methods methods = {tell_deadline, tell_value, count_drop};
    int drops = 0;
    double time = 0;
    lctx *source = lctx_with_cancel(lctx_background()), *custom = lctx_custom(source, &methods, &drops);
    lctx *child = lctx_with_cancel(custom);
    CHECK(lctx_err(custom) == LCTX_LIVE && lctx_can_end(custom));
    CHECK(lctx_deadline(child, &time) && time == 12345 && lctx_remaining(child) == 0);
    CHECK(value_is(child, &user_key, "told") && value_is(custom, &no_methods, NULL));
    cancel_with(source, "why");
    CHECK(ended_as(custom, LCTX_CANCELED, "why") && ended_as(child, LCTX_CANCELED, "why"));
    lctx_unref(source);
    lctx_unref(custom);
    CHECK(drops == 0);
    lctx_unref(child);
    CHECK(drops == 1);
}

TEST(a_custom_context_without_methods_has_nothing)
{
    lctx *custom = lctx_custom(NULL, &no_methods, NULL), *child = lctx_with_cancel(custom);
    check_never_ends(custom);
    CHECK(value_is(custom, &user_key, NULL));
    CHECK(lctx_can_end(child) && lctx_remaining(child) == INFINITY);
    lctx *over_root = lctx_custom(lctx_background(), &no_methods, NULL);
    CHECK(!lctx_can_end(over_root));
    lctx_cancel(child);
    CHECK(lctx_err(child) == LCTX_CANCELED && lctx_err(custom) == LCTX_LIVE);
    lctx *all[] = {over_root, child, custom};
    unref_all(all, 3);
}

int main(int argc, char **argv)
{
    static const check_case cases[] = {
        CASE(the_roots_never_end),
        CASE(the_roots_need_no_reference_counting),
        CASE(invalid_arguments_are_refused),
        CASE(errors_have_their_texts),
        CASE(a_cancel_ends_everything_below_before_it_returns),
        CASE(a_child_that_ends_leaves_everything_else_alone),
        CASE(what_has_ended_or_was_dropped_stays_in_no_list),
        CASE(under_an_ended_parent_everything_is_born_ended),
        CASE(the_first_end_wins),
        CASE(a_value_context_cannot_be_ended_by_itself),
        CASE(causes_of_every_type_are_kept),
        CASE(a_cause_is_copied_and_dropped_with_the_last_context),
        CASE(a_cause_that_is_never_used_is_dropped_all_the_same),
        CASE(error_and_cause_are_those_of_the_first_end_above),
        CASE(parents_end_before_children_and_those_in_the_order_of_creation),
        CASE(callbacks_of_one_context_run_in_the_order_of_registration),
        CASE(a_callback_runs_once_after_the_end),
        CASE(a_callback_on_an_ended_context_runs_at_once),
        CASE(a_stopped_callback_never_runs),
        CASE(a_freed_handle_leaves_the_registration_in_force),
        CASE(a_callback_may_use_every_function),
        CASE(a_callback_keeps_a_context_that_can_still_end_by_itself),
        CASE(a_stopped_callback_keeps_nothing),
        CASE(the_last_reference_ends_a_context_and_runs_its_callbacks),
        CASE(a_callback_does_not_keep_what_hangs_below_a_custom_context_that_never_ends),
        CASE(a_child_holds_its_ancestors),
        CASE(live_counts_value_contexts_with_what_they_show),
        CASE(a_cancel_of_any_layer_ends_those_below_and_no_value),
        CASE(without_cancel_is_cut_off_from_every_end_above),
        CASE(a_merge_ends_with_the_first_of_its_parents),
        CASE(of_parents_that_had_ended_the_first_in_order_counts),
        CASE(a_cancel_of_a_merge_leaves_its_parents_alone),
        CASE(a_merge_holds_its_parents),
        CASE(a_merge_of_contexts_that_never_end_ends_by_cancel_only),
        CASE(a_merge_with_one_parent_twice_ends_with_it),
        CASE(a_merge_below_two_branches_of_one_tree_ends_once),
        CASE(a_custom_context_answers_by_its_methods_and_ends_with_its_source),
        CASE(a_custom_context_without_methods_has_nothing),
        CASE(a_merge_below_two_branches_of_one_tree_ends_what_is_below_it),
        CASE(a_merge_with_one_parent_twice_ends_what_is_below_it),
    };
    return CHECK_MAIN(cases);
}
