/* SPDX-License-Identifier: MIT
 *
 * Values: lookups at any depth against a naive model, layers, merges, custom contexts; interned keys.
 */
#include <errno.h>

#include "../../csrc/core/context.h"
#include "../../csrc/core/key.h"
#include "../../csrc/core/layer.h"
#include "values.h"

static char keys[64];

/* ---- By hand --------------------------------------------------------------------------------------------- */

TEST(the_nearest_value_wins)
{
    lctx *outer = lctx_with_value(lctx_background(), &keys[0], of_string("outer"));
    lctx *other = lctx_with_value(outer, &keys[1], of_string("other"));
    lctx *inner = lctx_with_value(other, &keys[0], of_string("inner"));
    CHECK(value_is(outer, &keys[0], "outer") && value_is(other, &keys[0], "outer"));
    CHECK(value_is(inner, &keys[0], "inner") && value_is(inner, &keys[1], "other"));
    CHECK(value_is(outer, &keys[1], NULL) && value_is(inner, &keys[2], NULL) && value_is(inner, NULL, NULL));
    lctx *all[] = {outer, other, inner};
    unref_all(all, 3);
}

TEST(a_nil_masks_an_outer_value)
{
    lctx *outer = lctx_with_value(lctx_background(), &keys[0], of_string("outer"));
    lctx *inner = lctx_with_value(outer, &keys[0], (lctx_any){.type = LCTX_NIL});
    lctx_any any = of_integer(1);
    CHECK(lctx_value(inner, &keys[0], &any) && any.type == LCTX_NIL);
    lctx_unref(inner);
    lctx_unref(outer);
}

TEST(values_pass_through_every_kind_of_context_and_outlive_the_end)
{
    lctx *ctx[7] = {lctx_with_value(lctx_background(), &keys[0], of_string("alice"))};
    ctx[1] = lctx_with_cancel(ctx[0]);
    ctx[2] = lctx_with_timeout(ctx[1], 3600, NULL);
    ctx[3] = lctx_with_values(ctx[2], 0, NULL);
    ctx[4] = lctx_without_cancel(ctx[3]);
    ctx[5] = lctx_merge(2, (lctx *[]){lctx_background(), ctx[4]});
    ctx[6] = lctx_with_value(ctx[5], &keys[1], of_integer(1));
    lctx_cancel(ctx[1]);
    lctx_cancel(ctx[5]);
    for (int i = 0; i < 7; i++)
        CHECK(value_is(ctx[i], &keys[0], "alice"));
    unref_all(ctx, 7);
}

TEST(strings_are_copied_with_their_length)
{
    char text[] = "a\0b";
    lctx_any value = {.type = LCTX_STRING, .as.string = text, .of.length = 3}, any;
    lctx *ctx = lctx_with_value(lctx_background(), &keys[0], value);
    text[0] = 'x';
    CHECK(lctx_value(ctx, &keys[0], &any) && any.of.length == 3 && memcmp(any.as.string, "a\0b", 3) == 0);
    lctx *empty = lctx_with_value(ctx, &keys[0], of_string(""));
    CHECK(value_is(empty, &keys[0], ""));
    lctx_unref(empty);
    lctx_unref(ctx);
}

TEST(every_type_comes_back_as_it_was)
{
    const lctx_entry entries[] = {
        {&keys[0], of_boolean(false)},
        {&keys[1], of_integer(INT64_MIN)},
        {&keys[2], {.type = LCTX_NUMBER, .as.number = 0.1}},
        {&keys[3], of_pointer(&keys[3], NULL)},
        {&keys[4], {.type = LCTX_OBJECT, .subtype = 5, .as.pointer = &keys[4], .of.owner = keys}},
    };
    lctx *ctx = lctx_with_values(lctx_background(), 5, entries);
    for (int i = 0; i < 5; i++) {
        lctx_any any;
        CHECK(lctx_value(ctx, &keys[i], &any) && memcmp(&any, &entries[i].value, sizeof any) == 0);
    }
    lctx_unref(ctx);
}

TEST(a_pointer_is_dropped_once_when_its_context_is_freed)
{
    int drops = 0;
    const lctx_entry twice[] = {{&keys[0], of_pointer(&drops, count_drop)}, {&keys[0], of_pointer(&drops, count_drop)}};
    lctx *ctx = lctx_with_value(lctx_background(), &keys[0], of_pointer(&drops, count_drop));
    lctx *child = lctx_with_cancel(ctx);
    lctx_unref(ctx);
    lctx_cancel(child);
    CHECK(drops == 0);
    lctx_unref(child);
    CHECK(drops == 1);
    lctx_unref(lctx_with_values(lctx_background(), 2, twice));
    CHECK(drops == 3);
}

TEST(of_equal_keys_in_one_layer_the_last_counts)
{
    lctx_entry entries[40];
    for (size_t n = 0; n <= 40; n++) {
        for (size_t i = 0; i < n; i++)
            entries[i] = (lctx_entry){&keys[i % 7], of_integer((int64_t)i)};
        lctx *ctx = lctx_with_values(lctx_background(), n, entries);
        for (size_t i = 0; i < n; i++) {
            lctx_any any;
            if (i + 7 >= n)
                CHECK(lctx_value(ctx, &keys[i % 7], &any) && any.as.integer == (int64_t)i);
        }
        lctx_unref(ctx);
    }
}

TEST(a_view_of_a_value_stays_in_place)
{
    lctx *ctx = lctx_with_value(lctx_background(), &keys[0], of_string("alice")), *deep = lctx_ref(ctx);
    lctx_any first, again;
    CHECK(lctx_value(ctx, &keys[0], &first));
    for (int64_t i = 0; i < 100; i++) {
        lctx *child = lctx_with_value(deep, &keys[1 + i % 3], of_integer(i));
        lctx_unref(deep);
        deep = child;
        CHECK(lctx_value(deep, &keys[0], &again) && again.as.string == first.as.string);
    }
    lctx_unref(deep);
    lctx_unref(ctx);
}

/* ---- Against a model --------------------------------------------------------------------------------------
 * Beside each context, what each of KEYS keys is there: 0 for not found, else the integer. */

enum { KEYS = 24 };

typedef struct modelled {
    lctx *ctx;
    int64_t seen[KEYS];
} modelled;

static void check_model(const modelled *m)
{
    for (int i = 0; i < KEYS; i++) {
        lctx_any any = {.as.integer = 0};
        bool found = lctx_value(m->ctx, &keys[i], &any);
        CHECK(found == (m->seen[i] != 0) && any.as.integer == m->seen[i]);
    }
}

/* A layer of up to `most` random entries. */
static modelled model_values(const modelled *parent, uint64_t most, uint64_t *seed)
{
    lctx_entry entries[64];
    modelled made = *parent;
    size_t n = check_random(seed) % (most + 1);
    for (size_t i = 0; i < n; i++) {
        uint64_t key = check_random(seed) % KEYS;
        made.seen[key] = (int64_t)(check_random(seed) >> 2) + 1;
        entries[i] = (lctx_entry){&keys[key], of_integer(made.seen[key])};
    }
    made.ctx = n == 1 ? lctx_with_value(parent->ctx, entries[0].key, entries[0].value)
                      : lctx_with_values(parent->ctx, n, entries);
    return made;
}

static modelled model_plain(const modelled *parent, uint64_t *seed)
{
    modelled made = *parent;
    switch (check_random(seed) % 3) {
    case 0:
        made.ctx = lctx_with_cancel(parent->ctx);
        break;
    case 1:
        made.ctx = lctx_without_cancel(parent->ctx);
        break;
    default:
        made.ctx = lctx_with_timeout(parent->ctx, 3600, NULL);
    }
    return made;
}

static modelled model_merge(const modelled *from, size_t count, uint64_t *seed)
{
    modelled made = {0};
    lctx *parents[4];
    size_t n = 1 + check_random(seed) % 4;
    for (size_t i = 0; i < n; i++) {
        const modelled *parent = &from[check_random(seed) % count];
        parents[i] = parent->ctx;
        for (int key = 0; key < KEYS; key++)
            if (made.seen[key] == 0)
                made.seen[key] = parent->seen[key];
    }
    made.ctx = lctx_merge(n, parents);
    return made;
}

/* A custom context that knows a few keys; `self` is the model itself. */
static bool tell(void *self, const void *key, lctx_any *value)
{
    const modelled *model = self;
    int64_t seen = model->seen[(const char *)key - keys];
    *value = of_integer(seen);
    return seen != 0;
}

static modelled model_custom(const modelled *source, uint64_t *seed)
{
    static const lctx_methods methods = {.value = tell, .drop = free};
    modelled *self = calloc(1, sizeof *self);
    for (int i = 0; i < 3; i++)
        self->seen[check_random(seed) % KEYS] = (int64_t)(check_random(seed) >> 2) + 1;
    modelled made = *self;
    made.ctx = lctx_custom(source->ctx, &methods, self);
    return made;
}

TEST(lookups_are_right_at_every_depth)
{
    static modelled chain[2001];
    uint64_t seed = 7;
    chain[0] = (modelled){.ctx = lctx_background()};
    for (int i = 1; i <= 2000; i++) {
        chain[i] = check_random(&seed) % 4 == 0 ? model_plain(&chain[i - 1], &seed)
                                                : model_values(&chain[i - 1], check_random(&seed) % 4, &seed);
        check_model(&chain[i]);
    }
    for (int i = 0; i <= 2000; i++) /* nothing further down has changed what is seen here */
        check_model(&chain[i]);
    for (int i = 2000; i >= 0; i--) {
        check_model(&chain[i]);
        lctx_unref(chain[i].ctx);
    }
}

TEST(a_leaf_sees_its_values_after_its_ancestors_were_let_go)
{
    uint64_t seed = 8;
    modelled leaf = {.ctx = lctx_background()};
    for (int i = 0; i < 2000; i++) {
        modelled child = model_values(&leaf, 2, &seed);
        lctx_unref(leaf.ctx);
        leaf = child;
    }
    check_model(&leaf);
    lctx_unref(leaf.ctx);
}

static void check_random_graph(uint64_t number, bool customs)
{
    enum { NODES = 120 };
    static modelled nodes[NODES];
    int before = atomic_load(&check_failures);
    uint64_t seed = number;
    nodes[0] = (modelled){.ctx = lctx_background()};
    for (size_t i = 1, count = i; i < NODES; i++, count = i) {
        const modelled *parent = &nodes[i - 1 - check_random(&seed) % (i < 6 ? i : 6)];
        uint64_t dice = check_random(&seed) % 16;
        if (dice < 7)
            nodes[i] = model_values(parent, dice == 0 ? 40 : 3, &seed);
        else if (dice < 9)
            nodes[i] = model_plain(parent, &seed);
        else if (dice < 11 && customs)
            nodes[i] = model_custom(parent, &seed);
        else
            nodes[i] = model_merge(nodes, count, &seed);
        check_model(&nodes[i]);
    }
    for (int i = NODES - 1; i >= 0; i--) {
        check_model(&nodes[i]);
        lctx_unref(nodes[i].ctx);
    }
    if (atomic_load(&check_failures) != before)
        fprintf(stderr, "  in graph %d\n", (int)number);
}

TEST(merges_are_searched_from_left_to_right)
{
    for (uint64_t i = 1; i <= SCALED(100); i++)
        check_random_graph(i, false);
}

TEST(merges_with_custom_contexts_are_searched_from_left_to_right)
{
    for (uint64_t i = 1; i <= SCALED(100); i++)
        check_random_graph(i, true);
}

/* ---- Custom contexts ------------------------------------------------------------------------------------- */

static bool tell_string(void *self, const void *key, lctx_any *value)
{
    *value = of_string(self);
    return key == &keys[0];
}

static const lctx_methods teller = {.value = tell_string}, silent;

TEST(a_custom_context_stands_between_what_is_above_and_below_it)
{
    lctx *above = lctx_with_value(lctx_background(), &keys[0], of_string("above"));
    lctx *hidden = lctx_with_value(above, &keys[1], of_string("hidden"));
    lctx *custom = lctx_custom(hidden, &teller, (void *)"custom"), *child = lctx_with_cancel(custom);
    CHECK(value_is(child, &keys[0], "custom") && value_is(child, &keys[1], NULL));
    lctx *below = lctx_with_value(child, &keys[0], of_string("below"));
    lctx *deep = lctx_ref(below);
    CHECK(value_is(below, &keys[0], "below") && value_is(child, &keys[0], "custom"));
    for (int64_t i = 0; i < 40; i++) { /* past the point where the walk becomes a map */
        lctx *next = lctx_with_value(deep, &keys[2 + i % 20], of_integer(i));
        lctx_unref(deep);
        deep = next;
        CHECK(value_is(deep, &keys[0], "below") && value_is(deep, &keys[1], NULL));
    }
    lctx *all[] = {above, hidden, custom, child, below, deep};
    unref_all(all, 6);
}

static bool tell_all(void *self, const void *key, lctx_any *value)
{
    (void)key;
    *value = of_string(self);
    return true;
}

TEST(a_custom_context_is_asked_for_every_key_that_stands_before_it_nowhere)
{
    static const lctx_methods knowing = {.value = tell_all};
    lctx_entry entries[40];
    for (int i = 0; i < 40; i++)
        entries[i] = (lctx_entry){&keys[i], of_string("v")};
    lctx *values = lctx_with_values(lctx_background(), 40, entries);
    lctx *custom = lctx_custom(NULL, &knowing, (void *)"custom");
    lctx *merge = lctx_merge(2, (lctx *[]){values, custom});
    for (int i = 0; i < 64; i++)
        CHECK(value_is(merge, &keys[i], i < 40 ? "v" : "custom"));
    lctx *all[] = {values, custom, merge};
    unref_all(all, 3);
}

/* The same custom context is seen from two sides: the value stands behind it and before the other one. */
TEST(a_custom_context_seen_twice_does_not_change_the_order)
{
    lctx *x = lctx_custom(NULL, &silent, NULL), *y = lctx_custom(NULL, &teller, (void *)"y");
    lctx *value = lctx_with_value(lctx_background(), &keys[0], of_string("v"));
    lctx *right = lctx_merge(3, (lctx *[]){x, value, y});
    CHECK(value_is(right, &keys[0], "v"));
    lctx *merge = lctx_merge(2, (lctx *[]){x, right});
    CHECK(value_is(merge, &keys[0], "v"));
    lctx *all[] = {x, y, value, right, merge};
    unref_all(all, 5);
}

/* ---- Keys ------------------------------------------------------------------------------------------------ */

TEST(equal_content_is_one_key)
{
    const lctx_any contents[] = {
        of_string("user"), of_string(""),    of_string("1"),    of_integer(1),
        of_integer(0),     of_boolean(true), of_boolean(false), {.type = LCTX_NUMBER, .as.number = 0.5}};
    enum { N = sizeof contents / sizeof *contents };
    lctx_key *made[N];
    for (int i = 0; i < N; i++) {
        CHECK(lctx__key_of(&contents[i], false) == NULL);
        made[i] = lctx__key_of(&contents[i], true);
        for (int j = 0; j < i; j++)
            CHECK(made[i] != made[j]);
    }
    for (int i = 0; i < N; i++) {
        lctx_key *again = lctx__key_of(&contents[i], i % 2);
        CHECK(again == made[i] && lctx__key_content(again)->type == contents[i].type);
        lctx__key_unref(again);
    }
    for (int i = 0; i < N; i++) {
        lctx__key_unref(made[i]);
        CHECK(lctx__key_of(&contents[i], false) == NULL); /* forgotten with its last reference */
    }
}

TEST(a_named_key_equals_no_other)
{
    char name[] = "user";
    const lctx_any content = of_string(name);
    lctx_key *a = lctx__key_new(name, 4), *b = lctx__key_new(name, 4), *interned = lctx__key_of(&content, true);
    CHECK(a != b && a != interned && b != interned);
    name[0] = 'x';
    CHECK(is_string(lctx__key_content(a), "user") && is_string(lctx__key_content(interned), "user"));
    CHECK(lctx__key_ref(a) == a);
    lctx__key_unref(a);
    lctx__key_unref(a);
    lctx__key_unref(b);
    lctx__key_unref(interned);
}

TEST(many_keys_are_told_apart)
{
    enum { N = 20000 };
    static lctx_key *made[N];
    char text[16];
    for (int i = 0; i < N; i++) {
        const lctx_any content = {.type = LCTX_STRING, .as.string = text, .of.length = (size_t)sprintf(text, "%d", i)};
        made[i] = lctx__key_of(&content, true);
    }
    for (int i = 0; i < N; i++) {
        const lctx_any content = {.type = LCTX_STRING, .as.string = text, .of.length = (size_t)sprintf(text, "%d", i)};
        lctx_key *again = lctx__key_of(&content, false);
        CHECK(again == made[i] && is_string(lctx__key_content(again), text));
        lctx__key_unref(again);
        lctx__key_unref(made[i]);
        CHECK(lctx__key_of(&content, false) == NULL);
    }
}

TEST(a_layer_holds_its_keys)
{
    const lctx_any content = of_string("user");
    lctx_key *key = lctx__key_of(&content, true), *again;
    lctx_entry entry = {key, of_string("alice")};
    entry.value.reserved = LCTX_ENTRY_KEYED;
    lctx *ctx = lctx__with_entries(lctx_background(), LCTX_KIND_VALUE, 1, &entry);
    lctx__key_unref(key);
    CHECK((again = lctx__key_of(&content, false)) == key && value_is(ctx, again, "alice"));
    lctx__key_unref(again);
    lctx_unref(ctx);
    CHECK(lctx__key_of(&content, false) == NULL);
}

int main(int argc, char **argv)
{
    static const check_case cases[] = {
        CASE(the_nearest_value_wins),
        CASE(a_nil_masks_an_outer_value),
        CASE(values_pass_through_every_kind_of_context_and_outlive_the_end),
        CASE(strings_are_copied_with_their_length),
        CASE(every_type_comes_back_as_it_was),
        CASE(a_pointer_is_dropped_once_when_its_context_is_freed),
        CASE(of_equal_keys_in_one_layer_the_last_counts),
        CASE(a_view_of_a_value_stays_in_place),
        CASE(lookups_are_right_at_every_depth),
        CASE(a_leaf_sees_its_values_after_its_ancestors_were_let_go),
        CASE(merges_are_searched_from_left_to_right),
        CASE(merges_with_custom_contexts_are_searched_from_left_to_right),
        CASE(a_custom_context_stands_between_what_is_above_and_below_it),
        CASE(a_custom_context_is_asked_for_every_key_that_stands_before_it_nowhere),
        CASE(a_custom_context_seen_twice_does_not_change_the_order),
        CASE(equal_content_is_one_key),
        CASE(a_named_key_equals_no_other),
        CASE(many_keys_are_told_apart),
        CASE(a_layer_holds_its_keys),
    };
    return CHECK_MAIN(cases);
}
