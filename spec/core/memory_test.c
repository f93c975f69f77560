/* SPDX-License-Identifier: MIT
 *
 * No memory: every allocation of the library fails once in turn. What cannot be made is NULL with ENOMEM, and
 * making it again then works; nothing leaks, and ending needs no memory at all.
 */
// link: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=free
#include <math.h>

#include "../../csrc/core/context.h"
#include "../../csrc/core/key.h"
#include "../../csrc/core/layer.h"
#include "../../csrc/core/mailbox.h"
#include "faulty.h"
#include "values.h"

/* The result of `call`; if an allocation failed in it, of a second one. */
#define MAKE(result, call)                                                                                             \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        failed = false;                                                                                                \
        if (((result) = (call)) == NULL) {                                                                             \
            CHECK(failed &&errno == ENOMEM);                                                                           \
            (result) = (call);                                                                                         \
            CHECK((result) != NULL);                                                                                   \
        }                                                                                                              \
    } while (0)

static int faults; /* allocations that were made to fail, in all scenarios */

/* Runs a scenario until nothing fails in it any more; returns how often that was. */
static int run_out_everywhere(void (*scenario)(void))
{
    for (int nth = 1; nth < 10000; nth++) {
        long before = atomic_load(&blocks);
        countdown = nth;
        scenario();
        bool over = countdown > 0;
        countdown = 0;
        if (!CHECK(check_nothing_left() && atomic_load(&blocks) == before)) {
            fprintf(stderr, "  when allocation %d failed: %ld blocks left\n", nth, atomic_load(&blocks) - before);
            return nth;
        }
        if (over) {
            faults += nth - 1;
            return nth - 1;
        }
    }
    return 0;
}

/* ---- Everything ------------------------------------------------------------------------------------------ */

static char keys[80];
static const lctx_methods no_methods;

static void count_call(lctx_after *after, void *counter)
{
    (void)after;
    ++*(int *)counter;
}

static void make_scopes(void)
{
    const lctx_any cause = of_string("why");
    lctx *ctx[8];
    MAKE(ctx[0], lctx_with_cancel(lctx_background()));
    MAKE(ctx[1], lctx_with_timeout(ctx[0], 3600, &cause));
    MAKE(ctx[2], lctx_with_deadline(ctx[0], lctx_now() + 3600, &cause));
    MAKE(ctx[3], lctx_with_timeout(ctx[1], 0, &cause));
    MAKE(ctx[4], lctx_with_timeout(ctx[1], 7200, &cause));
    MAKE(ctx[5], lctx_without_cancel(ctx[4]));
    MAKE(ctx[6], lctx_custom(ctx[4], &no_methods, NULL));
    MAKE(ctx[7], lctx_merge(3, (lctx *[]){ctx[5], ctx[6], ctx[2]}));
    CHECK(ended_as(ctx[3], LCTX_DEADLINE_EXCEEDED, "why") && lctx_err(ctx[7]) == LCTX_LIVE);
    lctx_cancel(ctx[0]);
    CHECK(ended_as(ctx[7], LCTX_CANCELED, NULL));
    unref_all(ctx, 8);
}

TEST(scopes_can_be_made_again_after_a_failure)
{
    CHECK(run_out_everywhere(make_scopes) > 8);
}

static void make_values(void)
{
    lctx *ctx[25] = {lctx_background()};
    lctx_entry entries[40];
    for (int i = 1; i < 24; i++)
        MAKE(ctx[i], lctx_with_value(ctx[i - 1], &keys[i], of_string("v")));
    for (int i = 0; i < 40; i++)
        entries[i] = (lctx_entry){&keys[20 + i], i % 2 ? of_string("w") : of_integer(i)};
    MAKE(ctx[24], lctx_with_values(ctx[23], 40, entries));
    for (int i = 1; i < 20; i++)
        CHECK(value_is(ctx[24], &keys[i], "v"));
    for (int i = 21; i < 60; i += 2)
        CHECK(value_is(ctx[24], &keys[i], "w"));
    unref_all(ctx, 25);
}

TEST(values_can_be_made_again_after_a_failure)
{
    CHECK(run_out_everywhere(make_values) > 50);
}

static bool tell(void *self, const void *key, lctx_any *value)
{
    *value = of_string(self);
    return key == &keys[0];
}

static void make_merges(void)
{
    static const lctx_methods teller = {.value = tell};
    lctx *ctx[8];
    lctx_entry entries[24];
    for (int i = 0; i < 24; i++)
        entries[i] = (lctx_entry){&keys[1 + i], of_integer(i)};
    MAKE(ctx[0], lctx_with_values(lctx_background(), 24, entries));
    MAKE(ctx[1], lctx_with_value(lctx_background(), &keys[30], of_string("left")));
    MAKE(ctx[2], lctx_custom(NULL, &teller, (void *)"custom"));
    MAKE(ctx[3], lctx_merge(3, (lctx *[]){ctx[1], ctx[0], ctx[2]}));
    MAKE(ctx[4], lctx_custom(ctx[3], &teller, (void *)"other"));
    MAKE(ctx[5], lctx_merge(2, (lctx *[]){ctx[4], ctx[3]}));
    MAKE(ctx[6], lctx_with_value(ctx[5], &keys[31], of_string("below")));
    MAKE(ctx[7], lctx_merge(2, (lctx *[]){ctx[6], ctx[6]}));
    CHECK(value_is(ctx[7], &keys[30], "left") && value_is(ctx[7], &keys[0], "other"));
    CHECK(value_is(ctx[3], &keys[0], "custom"));
    unref_all(ctx, 8);
}

TEST(merges_can_be_made_again_after_a_failure)
{
    CHECK(run_out_everywhere(make_merges) > 20);
}

static void make_callbacks(void)
{
    int calls = 0;
    lctx *ctx, *child;
    lctx_after *after[4];
    lctx_notifier *notifiers[3];
    MAKE(ctx, lctx_with_cancel(lctx_background()));
    MAKE(child, lctx_with_cancel(ctx));
    for (int i = 0; i < 4; i++)
        MAKE(after[i], lctx_after_func(i % 2 ? child : i ? ctx : lctx_background(), count_call, &calls));
    MAKE(notifiers[0], lctx_notifier_new(child));
    MAKE(notifiers[1], lctx_notifier_new(lctx_background()));
    CHECK(lctx_after_stop(after[1]) && calls == 0);
    lctx_cancel(ctx);
    CHECK(calls == 2);
    MAKE(notifiers[2], lctx_notifier_new(child));
    for (int i = 0; i < 4; i++)
        lctx_after_free(after[i]);
    for (int i = 0; i < 3; i++)
        lctx_notifier_free(notifiers[i]);
    MAKE(after[0], lctx_after_func(child, count_call, &calls));
    CHECK(calls == 3);
    lctx_after_free(after[0]);
    lctx_unref(child);
    lctx_unref(ctx);
}

TEST(callbacks_can_be_registered_again_after_a_failure)
{
    CHECK(run_out_everywhere(make_callbacks) > 10);
}

static void make_notes(void)
{
    lctx *ctx;
    lctx_mailbox *mailbox;
    lctx_after *notes[3];
    MAKE(ctx, lctx_with_cancel(lctx_background()));
    MAKE(mailbox, lctx__mailbox_new());
    MAKE(notes[0], lctx__mailbox_register(mailbox, ctx, LCTX_KIND_WAITER, 0));
    MAKE(notes[1], lctx__mailbox_register(mailbox, lctx_background(), LCTX_KIND_WAITER, 1));
    lctx_cancel(ctx);
    MAKE(notes[2], lctx__mailbox_register(mailbox, ctx, LCTX_KIND_WAITER, 2));
    CHECK(lctx__mailbox_take(mailbox) == notes[0] && lctx__mailbox_stop(notes[1]));
    lctx__after_unref(notes[0]);
    for (int i = 0; i < 3; i++)
        lctx__after_unref(notes[i]);
    lctx__mailbox_close(mailbox);
    lctx_unref(ctx);
}

TEST(notes_can_be_registered_again_after_a_failure)
{
    CHECK(run_out_everywhere(make_notes) > 4);
}

static void make_keys(void)
{
    enum { N = 200 };
    lctx_key *made[N], *named;
    lctx *ctx;
    char text[16];
    for (int i = 0; i < N; i++) {
        const lctx_any content = {.type = LCTX_STRING, .as.string = text, .of.length = (size_t)sprintf(text, "%d", i)};
        MAKE(made[i], lctx__key_of(&content, true));
    }
    MAKE(named, lctx__key_new("name", 4));
    lctx_entry entries[] = {{made[0], of_string("v")}, {named, of_string("w")}};
    entries[0].value.reserved = entries[1].value.reserved = LCTX_ENTRY_KEYED;
    MAKE(ctx, lctx__with_entries(lctx_background(), LCTX_KIND_VALUES, 2, entries));
    for (int i = 0; i < N; i++)
        lctx__key_unref(made[i]);
    lctx__key_unref(named);
    CHECK(value_is(ctx, made[0], "v") && value_is(ctx, named, "w"));
    lctx_unref(ctx);
}

TEST(keys_can_be_interned_again_after_a_failure)
{
    CHECK(run_out_everywhere(make_keys) > 200);
}

/* ---- What was passed stays with the caller --------------------------------------------------------------- */

typedef lctx *make_with_pointer(lctx *parent, lctx_any pointer);

static lctx *value_of_pointer(lctx *parent, lctx_any pointer)
{
    return lctx_with_value(parent, &keys[0], pointer);
}

static lctx *values_of_pointer(lctx *parent, lctx_any pointer)
{
    lctx_entry entries[20] = {{&keys[0], pointer}};
    for (int i = 1; i < 20; i++)
        entries[i] = (lctx_entry){&keys[i], of_string("v")};
    return lctx_with_values(parent, 20, entries);
}

static lctx *timeout_of_pointer(lctx *parent, lctx_any pointer)
{
    return lctx_with_timeout(parent, 3600, &pointer);
}

static lctx *deadline_of_pointer(lctx *parent, lctx_any pointer)
{
    return lctx_with_deadline(parent, lctx_now() + 3600, &pointer);
}

static lctx *custom_of_pointer(lctx *parent, lctx_any pointer)
{
    static const lctx_methods methods = {.drop = count_drop};
    return lctx_custom(parent, &methods, pointer.as.pointer);
}

static void check_pointer(make_with_pointer *make)
{
    for (int nth = 1;; nth++) {
        int drops = 0;
        long before = atomic_load(&blocks);
        countdown = nth;
        lctx *ctx = make(lctx_background(), of_pointer(&drops, count_drop));
        countdown = 0;
        CHECK(drops == 0); /* made or not */
        lctx_unref(ctx);
        CHECK(drops == (ctx != NULL) && atomic_load(&blocks) == before);
        if (ctx)
            return;
    }
}

TEST(a_pointer_stays_with_the_caller_of_a_constructor_that_fails)
{
    check_pointer(value_of_pointer);
    check_pointer(values_of_pointer);
    check_pointer(custom_of_pointer);
    check_pointer(timeout_of_pointer);
    check_pointer(deadline_of_pointer);
}

/* ---- Ending ---------------------------------------------------------------------------------------------- */

TEST(a_cause_that_cannot_be_copied_does_not_keep_a_context_from_ending)
{
    const lctx_any cause = of_string("why");
    for (int nth = 1; nth <= 2; nth++) {
        lctx *ctx = lctx_with_cancel(lctx_background());
        countdown = nth;
        CHECK(lctx_cancel_cause(ctx, &cause) == ENOMEM);
        CHECK(ended_as(ctx, LCTX_CANCELED, NULL));
        CHECK(lctx_cancel_cause(ctx, &cause) == 0 && cause_is(ctx, NULL));
        lctx_unref(ctx);
    }
    countdown = 0;
}

static void end_everything(lctx **ctx, lctx_notifier *notifier, lctx_after *stopped)
{
    lctx_any any;
    CHECK(lctx_wait(ctx[5], INFINITY) && lctx_err(ctx[5]) == LCTX_DEADLINE_EXCEEDED);
    CHECK(lctx_after_stop(stopped));
    lctx_cancel(ctx[3]);
    lctx_cancel(ctx[0]);
    for (int i = 0; i < 5; i++)
        CHECK(lctx_err(ctx[i]) == LCTX_CANCELED && lctx_wait(ctx[i], 1) && !lctx_cause(ctx[i], &any));
    CHECK(value_is(ctx[4], &keys[0], "v"));
    lctx_notifier_free(notifier);
    lctx_after_free(stopped);
    unref_all(ctx, 6);
}

TEST(ending_asking_waiting_and_freeing_take_no_memory)
{
    int calls = 0;
    lctx *ctx[6] = {lctx_with_cancel(lctx_background())};
    ctx[1] = lctx_with_timeout(ctx[0], 3600, NULL);
    ctx[2] = lctx_merge(2, (lctx *[]){ctx[0], ctx[1]});
    ctx[3] = lctx_custom(ctx[1], &no_methods, NULL);
    ctx[4] = lctx_with_value(ctx[0], &keys[0], of_string("v"));
    ctx[5] = lctx_with_timeout(ctx[0], 0.001, NULL);
    lctx_after_free(lctx_after_func(ctx[1], count_call, &calls));
    lctx_after *stopped = lctx_after_func(ctx[3], count_call, &calls);
    lctx_notifier *notifier = lctx_notifier_new(ctx[4]);
    long before = atomic_load(&allocations);
    countdown = -1;
    end_everything(ctx, notifier, stopped);
    countdown = 0;
    CHECK(atomic_load(&allocations) == before && calls == 1);
}

int main(int argc, char **argv)
{
    static const check_case cases[] = {
        CASE(scopes_can_be_made_again_after_a_failure),
        CASE(values_can_be_made_again_after_a_failure),
        CASE(merges_can_be_made_again_after_a_failure),
        CASE(callbacks_can_be_registered_again_after_a_failure),
        CASE(notes_can_be_registered_again_after_a_failure),
        CASE(keys_can_be_interned_again_after_a_failure),
        CASE(a_pointer_stays_with_the_caller_of_a_constructor_that_fails),
        CASE(a_cause_that_cannot_be_copied_does_not_keep_a_context_from_ending),
        CASE(ending_asking_waiting_and_freeing_take_no_memory),
    };
    int status = CHECK_MAIN(cases);
    fprintf(stderr, "%d allocations made to fail, one at a time\n", faults);
    return status;
}
