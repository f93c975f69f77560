/* SPDX-License-Identifier: MIT
 *
 * The persistent map, alone: contents, sharing, colliding hashes, ranks.
 */
#include "../../csrc/core/map.h"
#include "values.h"

enum { KEYS = 4096 };

static lctx_entry pool[KEYS * 2]; /* two entries for each key */

static void fill_pool(uint64_t stride)
{
    for (uint64_t i = 0; i < KEYS * 2; i++)
        pool[i] = (lctx_entry){(const void *)(uintptr_t)(i / 2 * stride), of_integer((int64_t)i)};
}

static bool maps_to(const lctx_map *map, const lctx_entry *entry, uint32_t rank)
{
    uint32_t found = UINT32_MAX;
    return lctx__map_get(map, entry->key, &found) == entry && found == rank;
}

static bool lacks(const lctx_map *map, const lctx_entry *entry)
{
    uint32_t rank;
    return lctx__map_get(map, entry->key, &rank) == NULL;
}

TEST(a_map_holds_what_was_put_in_last)
{
    static const uint64_t strides[] = {1, 16, 4096, UINT64_C(1) << 20, UINT64_C(1) << 40, UINT64_C(0x123456789)};
    for (size_t s = 0; s < sizeof strides / sizeof *strides; s++) {
        lctx_map *map = lctx__map_new(NULL);
        fill_pool(strides[s]);
        for (int i = 0; i < KEYS; i++) {
            CHECK(lacks(map, &pool[2 * i]));
            CHECK(lctx__map_put(map, &pool[2 * i], (uint32_t)i));
            CHECK(maps_to(map, &pool[2 * i], (uint32_t)i));
        }
        for (int i = 0; i < KEYS; i += 3)
            CHECK(lctx__map_put(map, &pool[2 * i + 1], 7));
        for (int i = 0; i < KEYS; i++)
            CHECK(i % 3 ? maps_to(map, &pool[2 * i], (uint32_t)i) : maps_to(map, &pool[2 * i + 1], 7));
        lctx__map_free(map);
    }
}

TEST(an_empty_map_holds_nothing)
{
    lctx_map *map = lctx__map_new(NULL), *copy = lctx__map_new(map);
    CHECK(lacks(map, &pool[0]) && lacks(copy, &pool[0]));
    lctx__map_free(copy);
    lctx__map_free(map);
    lctx__map_free(NULL);
}

/* Each generation has one key more and one replaced; the model is where each key stands in each of them. */
TEST(a_new_map_leaves_the_older_ones_as_they_are)
{
    enum { GENERATIONS = 500 };
    static lctx_map *maps[GENERATIONS];
    fill_pool(64);
    for (int g = 0; g < GENERATIONS; g++) {
        maps[g] = lctx__map_new(g ? maps[g - 1] : NULL);
        CHECK(lctx__map_put(maps[g], &pool[2 * g], 0));
        CHECK(lctx__map_put(maps[g], &pool[g / 2 * 2 + 1], 0));
    }
    for (int g = 0; g < GENERATIONS; g++)
        for (int key = 0; key < GENERATIONS; key++) {
            if (key > g)
                CHECK(lacks(maps[g], &pool[2 * key]));
            else
                CHECK(maps_to(maps[g], &pool[key <= g / 2 ? 2 * key + 1 : 2 * key], 0));
        }
    while (maps[0] != NULL)
        for (int g = GENERATIONS; g-- > 0; maps[g] = NULL)
            lctx__map_free(maps[g]);
}

TEST(appending_puts_in_what_is_not_there)
{
    lctx_map *left = lctx__map_new(NULL), *right = lctx__map_new(NULL);
    fill_pool(64);
    for (int i = 0; i < 1000; i++)
        CHECK(lctx__map_put(left, &pool[2 * i], 0));
    for (int i = 500; i < 1500; i++)
        CHECK(lctx__map_put(right, &pool[2 * i + 1], 0));
    CHECK(lctx__map_append(left, right));
    lctx__map_free(right);
    for (int i = 0; i < 2000; i++)
        CHECK(i < 1000   ? maps_to(left, &pool[2 * i], 0)
              : i < 1500 ? maps_to(left, &pool[2 * i + 1], 0)
                         : lacks(left, &pool[2 * i]));
    lctx__map_free(left);
}

/* The customs of a map are never looked at here: any address will do. */
TEST(a_rank_says_how_many_custom_contexts_are_asked_before)
{
    lctx *x = (lctx *)&pool[0], *y = (lctx *)&pool[1], *z = (lctx *)&pool[2];
    lctx_map *left = lctx__map_new(NULL), *right = lctx__map_new(NULL);
    fill_pool(64);
    CHECK(lctx__map_add_custom(left, x) && lctx__map_add_custom(left, x));
    CHECK(lctx__map_put(right, &pool[0], 0));
    CHECK(lctx__map_add_custom(right, y) && lctx__map_put(right, &pool[2], 1));
    CHECK(lctx__map_add_custom(right, z) && lctx__map_put(right, &pool[4], 2));
    CHECK(lctx__map_append(left, right));
    CHECK(left->custom_count == 3 && left->customs[0] == x && left->customs[1] == y && left->customs[2] == z);
    CHECK(maps_to(left, &pool[0], 1) && maps_to(left, &pool[2], 2) && maps_to(left, &pool[4], 3));
    lctx__map_free(left);
    lctx__map_free(right);
}

TEST(a_custom_context_on_both_sides_counts_once_in_a_rank)
{
    lctx *x = (lctx *)&pool[0], *y = (lctx *)&pool[1];
    lctx_map *left = lctx__map_new(NULL), *right = lctx__map_new(NULL);
    fill_pool(64);
    CHECK(lctx__map_add_custom(left, x));
    CHECK(lctx__map_add_custom(right, x) && lctx__map_put(right, &pool[0], 1) && lctx__map_add_custom(right, y));
    CHECK(lctx__map_append(left, right));
    CHECK(left->custom_count == 2 && maps_to(left, &pool[0], 1));
    lctx__map_free(left);
    lctx__map_free(right);
}

int main(int argc, char **argv)
{
    static const check_case cases[] = {
        CASE(a_map_holds_what_was_put_in_last),
        CASE(an_empty_map_holds_nothing),
        CASE(a_new_map_leaves_the_older_ones_as_they_are),
        CASE(appending_puts_in_what_is_not_there),
        CASE(a_rank_says_how_many_custom_contexts_are_asked_before),
        CASE(a_custom_context_on_both_sides_counts_once_in_a_rank),
    };
    return CHECK_MAIN(cases);
}
