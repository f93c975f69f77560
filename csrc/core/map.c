/* SPDX-License-Identifier: MIT */
#include "map.h"

#include <stdlib.h>
#include <string.h>

enum { BITS = 5, WAYS = 1 << BITS };

typedef struct slot {
    union {
        const lctx_map_node *node;
        const lctx_entry *entry;
    } to;
    uint32_t rank; /* of an entry */
} slot;

struct lctx_map_node {
    const lctx_map *owner; /* the map that made this node and frees it */
    uint32_t used;         /* which of the 32 ways exist; their slots are packed in order */
    uint32_t entries;      /* which of those hold an entry, not a node */
    slot slots[];
};

static inline uint32_t way_bit(uint64_t hash, int shift)
{
    return UINT32_C(1) << (hash << shift >> (64 - BITS));
}

/* What the compiler makes of __builtin_popcount is a call where the processor is not known to have it. */
static inline int popcount(uint32_t bits)
{
    bits -= bits >> 1 & 0x55555555u;
    bits = (bits & 0x33333333u) + (bits >> 2 & 0x33333333u);
    return (int)(((bits + (bits >> 4)) & 0x0F0F0F0Fu) * 0x01010101u >> 24);
}

static inline int slot_of(const lctx_map_node *node, uint32_t bit)
{
    return popcount(node->used & (bit - 1));
}

static lctx_map_node *new_node(const lctx_map *map, uint32_t used, uint32_t entries)
{
    lctx_map_node *node = malloc(sizeof *node + sizeof(slot) * (size_t)popcount(used));
    if (node)
        *node = (lctx_map_node){.owner = map, .used = used, .entries = entries};
    return node;
}

/* Puts into *link a node that `map` owns, equal to the one there (NULL: empty), with a slot for the way
 * `bit`. A slot that is new is left for the caller to fill. */
static lctx_map_node *own(const lctx_map *map, const lctx_map_node **link, uint32_t bit)
{
    static const lctx_map_node empty;
    const lctx_map_node *old = *link ? *link : &empty;
    bool gap = !(old->used & bit);
    if (old->owner == map && !gap)
        return (lctx_map_node *)old;
    lctx_map_node *node = new_node(map, old->used | bit, old->entries);
    if (node == NULL)
        return NULL;
    int count = popcount(old->used), at = slot_of(old, bit);
    memcpy(node->slots, old->slots, sizeof(slot) * (size_t)at);
    memcpy(node->slots + at + gap, old->slots + at, sizeof(slot) * (size_t)(count - at));
    if (old->owner == map)
        free((lctx_map_node *)old);
    *link = node;
    return node;
}

lctx_map *lctx__map_new(const lctx_map *from)
{
    lctx_map *map = calloc(1, sizeof *map);
    if (map == NULL || from == NULL)
        return map;
    map->root = from->root;
    for (uint32_t i = 0; i < from->custom_count; i++)
        if (!lctx__map_add_custom(map, from->customs[i])) {
            lctx__map_free(map);
            return NULL;
        }
    return map;
}

/* From the root down, with a complete trie after every step: when memory is out nothing is lost. */
bool lctx__map_put(lctx_map *map, const lctx_entry *entry, uint32_t rank)
{
    const slot new = {.to.entry = entry, .rank = rank};
    const lctx_map_node **link = &map->root;
    uint64_t hash = lctx__mix(entry->key);
    for (int shift = 0;; shift += BITS) {
        uint32_t bit = way_bit(hash, shift);
        bool vacant = *link == NULL || !((*link)->used & bit);
        lctx_map_node *node = own(map, link, bit);
        if (node == NULL)
            return false;
        slot *slot = &node->slots[slot_of(node, bit)];
        if (vacant || ((node->entries & bit) && slot->to.entry->key == entry->key)) {
            node->entries |= bit;
            *slot = new;
            return true;
        }
        if (node->entries & bit) { /* another key on this way: both move to a node below */
            uint32_t bit_below = way_bit(lctx__mix(slot->to.entry->key), shift + BITS);
            lctx_map_node *below = new_node(map, bit_below, bit_below);
            if (below == NULL)
                return false;
            below->slots[0] = *slot;
            slot->to.node = below;
            node->entries &= ~bit;
        }
        link = &slot->to.node;
    }
}

static bool lists_custom(const lctx_map *map, const lctx *custom)
{
    for (uint32_t i = 0; i < map->custom_count; i++)
        if (map->customs[i] == custom)
            return true;
    return false;
}

bool lctx__map_add_custom(lctx_map *map, lctx *custom)
{
    if (lists_custom(map, custom))
        return true;
    lctx **customs = realloc(map->customs, sizeof *customs * (map->custom_count + 1));
    if (customs == NULL)
        return false;
    customs[map->custom_count++] = custom;
    map->customs = customs;
    return true;
}

/* The rank of an entry of `other` behind all that `map` has: a custom context of both is asked once. */
static uint32_t rank_behind(const lctx_map *map, const lctx_map *other, uint32_t rank)
{
    uint32_t behind = map->custom_count;
    for (uint32_t i = 0; i < rank; i++)
        behind += !lists_custom(map, other->customs[i]);
    return behind;
}

static bool append_nodes(lctx_map *map, const lctx_map *other, const lctx_map_node *node)
{
    const slot *slot = node->slots;
    for (uint32_t rest = node->used; rest; rest &= rest - 1, slot++) {
        uint32_t ignored;
        bool done;
        if (!(node->entries & rest & -rest))
            done = append_nodes(map, other, slot->to.node);
        else
            done = lctx__map_get(map, slot->to.entry->key, &ignored) ||
                   lctx__map_put(map, slot->to.entry, rank_behind(map, other, slot->rank));
        if (!done)
            return false;
    }
    return true;
}

bool lctx__map_append(lctx_map *map, const lctx_map *other)
{
    if (other->root && other->root != map->root && !append_nodes(map, other, other->root))
        return false;
    for (uint32_t i = 0; i < other->custom_count; i++)
        if (!lctx__map_add_custom(map, other->customs[i]))
            return false;
    return true;
}

const lctx_entry *lctx__map_get(const lctx_map *map, const void *key, uint32_t *rank)
{
    uint64_t hash = lctx__mix(key);
    for (const lctx_map_node *node = map->root; node; hash <<= BITS) {
        uint32_t bit = way_bit(hash, 0);
        if (!(node->used & bit))
            return NULL;
        const slot *slot = &node->slots[slot_of(node, bit)];
        if (node->entries & bit) {
            if (slot->to.entry->key != key)
                return NULL;
            *rank = slot->rank;
            return slot->to.entry;
        }
        node = slot->to.node;
    }
    return NULL;
}

/* Nodes of this map hang only below nodes of this map: who copies a node has copied the way to it. */
static void free_nodes(const lctx_map *map, const lctx_map_node *node)
{
    if (node == NULL || node->owner != map)
        return;
    const slot *slot = node->slots;
    for (uint32_t rest = node->used; rest; rest &= rest - 1, slot++)
        if (!(node->entries & rest & -rest))
            free_nodes(map, slot->to.node);
    free((lctx_map_node *)node);
}

void lctx__map_free(lctx_map *map)
{
    if (map == NULL)
        return;
    free_nodes(map, map->root);
    free(map->customs);
    free(map);
}
