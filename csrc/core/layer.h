/* SPDX-License-Identifier: MIT
 *
 * layer.h - what contexts carry: layers of entries, and how a key is found in them.
 *
 * A lookup walks the nearest few layers, at most 8 entries of them, and then asks one map that knows
 * everything further up. A layer whose walk would become longer makes a new map. A filter of the keys in the
 * walk lets lookups skip it: one in twenty walks in vain. So a lookup costs the same at any depth, and a layer
 * of a few keys is made by copying them, no more.
 *
 * Layers are immutable. They belong to a context, and point only to layers of its ancestors.
 */
#ifndef LCTX_LAYER_H
#define LCTX_LAYER_H

#include "map.h"
#include "node.h"

#pragma GCC visibility push(hidden)

/* lctx_entry.value.reserved in a layer: the key is an lctx_key, of which the entry holds a reference. */
enum { LCTX_ENTRY_KEYED = 1 };

struct lctx_layer {
    const lctx_layer *up; /* the next layer of the walk; NULL: it ends here */
    lctx_map *map;        /* everything beyond the walk; NULL: nothing */
    uint64_t filter[2];   /* a bit in each for each key in the walk; none: the map has all */
    uint32_t count;
    uint16_t walk; /* entries in the walk, from this layer on; an empty layer counts as one */
    bool owns_map;
    lctx_entry entries[];
};

/* Fills a layer with copies of n entries, over `above` (NULL: nothing). False, and nothing to clear, when
 * memory is out. */
bool lctx__layer_init(lctx_layer *layer, const lctx_layer *above, size_t n, const lctx_entry *entries);
void lctx__layer_clear(lctx_layer *layer);

/* The layer of a custom context, which will be asked. NULL when memory is out. */
lctx_layer *lctx__layer_of_custom(lctx *custom);

/* What n layers (NULLs among them) are together, the first ones nearest. False when memory is out. *layer is
 * the result; *own is it if it was made for this, else NULL. */
bool lctx__layer_merge(size_t n, const lctx_layer *const *layers, const lctx_layer **layer, lctx_layer **own);
void lctx__layer_free(lctx_layer *layer);

/* Asks a custom context: writes *value and returns true if it has one. */
typedef bool lctx_ask(void *arg, lctx *custom, lctx_any *value);

/* The same for what lies beyond the walk. */
const lctx_any *lctx__find_in_map(const lctx_map *map, const void *key, lctx_ask *ask, void *arg, lctx_any *answer);

static inline bool lctx__may_be_in_walk(const lctx_layer *layer, const void *key)
{
    uint64_t hash = lctx__mix(key);
    return layer->filter[0] >> (hash >> 58) & layer->filter[1] >> (hash >> 52 & 63) & 1;
}

/* The value of key as ctx sees it, or NULL. What a custom context answered is written to *answer and that
 * is returned; else the result points into the layer, and is one address as long as that lives. */
static inline const lctx_any *lctx__find(const lctx *ctx, const void *key, lctx_ask *ask, void *arg, lctx_any *answer)
{
    if (ctx->layer == NULL)
        return NULL;
    if (lctx__may_be_in_walk(ctx->layer, key))
        for (const lctx_layer *layer = ctx->layer; layer; layer = layer->up)
            for (uint32_t i = layer->count; i-- > 0;)
                if (layer->entries[i].key == key)
                    return &layer->entries[i].value;
    const lctx_map *map = ctx->layer->map;
    return map ? lctx__find_in_map(map, key, ask, arg, answer) : NULL;
}

#pragma GCC visibility pop
#endif
