/* SPDX-License-Identifier: MIT
 *
 * map.h - a persistent map from key to entry: what makes lookups in deep contexts flat.
 *
 * A hash trie of 32 ways. A new map is made from an older one by copying the nodes on the way to
 * what changes, and shares the rest. No reference counts: a map belongs to a value layer, what it shares
 * belongs to layers above, and those live longer, since a context holds its ancestors.
 *
 * Keys are mixed by a bijection, so that two keys never have the same hash: no collision nodes.
 *
 * A map also lists the custom contexts above, which have to be asked. An entry with rank r stands behind the
 * first r of them: those are asked before it.
 */
#ifndef LCTX_MAP_H
#define LCTX_MAP_H

#include "public.h"

#pragma GCC visibility push(hidden)

/* Multiplication by an odd number loses nothing, and mixes well at the top: ways are taken from there down. */
static inline uint64_t lctx__mix(const void *key)
{
    return (uint64_t)(uintptr_t)key * UINT64_C(0x9E3779B97F4A7C15);
}

typedef struct lctx_map_node lctx_map_node;

typedef struct lctx_map {
    const lctx_map_node *root; /* NULL: empty */
    lctx **customs;            /* in the order of asking; owned array of borrowed contexts, or NULL */
    uint32_t custom_count;
} lctx_map;

/* A new map, equal to `from` (NULL: empty). NULL when memory is out. */
lctx_map *lctx__map_new(const lctx_map *from);

/* Puts `entry` (which must outlive the map) in, over what was there. `map` must not be shared yet. */
bool lctx__map_put(lctx_map *map, const lctx_entry *entry, uint32_t rank);

/* Appends a custom context, unless it is there. `map` must not be shared yet. */
bool lctx__map_add_custom(lctx_map *map, lctx *custom);

/* Puts in what `other` holds and `map` does not, as standing behind all that `map` has. `map` must not be
 * shared yet. */
bool lctx__map_append(lctx_map *map, const lctx_map *other);

/* The entry under key, and its rank; NULL if there is none. */
const lctx_entry *lctx__map_get(const lctx_map *map, const void *key, uint32_t *rank);

void lctx__map_free(lctx_map *map);

#pragma GCC visibility pop
#endif
