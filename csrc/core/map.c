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
    bool is_node;
} slot;

struct lctx_map_node {
    const lctx_map *owner; /* the map that made this node and frees it */
    uint8_t count;         /* of slots */
    uint8_t place[WAYS];   /* of each way, the number of its slot, from 1 on; 0: nothing is there */
    slot slots[];
};

static inline unsigned way_of(uint64_t hash, int shift)
{
    return (unsigned)(hash << shift >> (64 - BITS));
}

/* Puts into *link a node that `map` owns, equal to the one there (NULL: empty), with a slot for this way. A slot
 * that is new is left for the caller to fill. */
static lctx_map_node *own(const lctx_map *map, const lctx_map_node **link, unsigned way)
{
    static const lctx_map_node empty;
    const lctx_map_node *old = *link ? *link : &empty;
    bool gap = old->place[way] == 0;
    if (old->owner == map && !gap)
        return (lctx_map_node *)old;
    size_t size = sizeof *old + sizeof(slot) * old->count;
    lctx_map_node *node = malloc(size + (gap ? sizeof(slot) : 0));
    if (node == NULL)
        return NULL;
    memcpy(node, old, size);
    node->owner = map;
    if (gap)
        node->place[way] = ++node->count;
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

/* Between `slot` and its entry comes a node, in which there is room for another. */
static bool push_down(const lctx_map *map, slot *slot, int shift)
{
    const lctx_map_node *below = NULL;
    lctx_map_node *node = own(map, &below, way_of(lctx__mix(slot->to.entry->key), shift));
    if (node == NULL)
        return false;
    node->slots[0] = *slot;
    slot->to.node = node;
    slot->is_node = true;
    return true;
}

/* From the root down, with a complete trie after every step: when memory is out nothing is lost. */
bool lctx__map_put(lctx_map *map, const lctx_entry *entry, uint32_t rank)
{
    const lctx_map_node **link = &map->root;
    uint64_t hash = lctx__mix(entry->key);
    for (int shift = 0;; shift += BITS) {
        unsigned way = way_of(hash, shift);
        bool vacant = *link == NULL || (*link)->place[way] == 0;
        lctx_map_node *node = own(map, link, way);
        if (node == NULL)
            return false;
        slot *slot = &node->slots[node->place[way] - 1];
        if (vacant || (!slot->is_node && slot->to.entry->key == entry->key)) {
            slot->to.entry = entry;
            slot->rank = rank;
            slot->is_node = false;
            return true;
        }
        if (!slot->is_node && !push_down(map, slot, shift + BITS))
            return false;
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
    for (int i = 0; i < node->count; i++) {
        const slot *slot = &node->slots[i];
        uint32_t ignored;
        bool done;
        if (slot->is_node)
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
        unsigned place = node->place[way_of(hash, 0)];
        if (place == 0)
            return NULL;
        const slot *slot = &node->slots[place - 1];
        if (!slot->is_node) {
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
    for (int i = 0; i < node->count; i++)
        if (node->slots[i].is_node)
            free_nodes(map, node->slots[i].to.node);
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
