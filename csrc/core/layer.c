/* SPDX-License-Identifier: MIT */
#include "layer.h"

#include <stdlib.h>

#include "key.h"

enum { WALK_MAX = 8 };

static void add_to_filter(lctx_layer *layer, const void *key)
{
    uint64_t hash = lctx__mix(key);
    layer->filter[0] |= UINT64_C(1) << (hash >> 58);
    layer->filter[1] |= UINT64_C(1) << (hash >> 52 & 63);
}

static void drop_entries(lctx_layer *layer)
{
    for (uint32_t i = 0; i < layer->count; i++) {
        lctx_entry *entry = &layer->entries[i];
        if (entry->value.reserved == LCTX_ENTRY_KEYED)
            lctx__key_unref((lctx_key *)entry->key);
        lctx__any_drop(&entry->value);
    }
}

static bool copy_entries(lctx_layer *layer, size_t n, const lctx_entry *entries)
{
    for (size_t i = 0; i < n; i++) {
        lctx_entry *entry = &layer->entries[i];
        entry->key = entries[i].key;
        if (!lctx__any_copy(&entry->value, &entries[i].value)) {
            for (size_t j = 0; j < i; j++) /* the caller keeps what it passed */
                if (layer->entries[j].value.type == LCTX_POINTER)
                    layer->entries[j].value.of.drop = NULL;
            drop_entries(layer);
            return false;
        }
        if (entry->value.reserved == LCTX_ENTRY_KEYED)
            lctx__key_ref((lctx_key *)entry->key);
        add_to_filter(layer, entry->key);
        layer->count++;
    }
    return true;
}

static bool map_entries(lctx_map *map, const lctx_layer *layer)
{
    for (uint32_t i = 0; i < layer->count; i++)
        if (!lctx__map_put(map, &layer->entries[i], 0))
            return false;
    return true;
}

/* Puts the walk from `layer` on into the map, the furthest first, so that the nearest stays. */
static bool map_walk(lctx_map *map, const lctx_layer *layer)
{
    const lctx_layer *walk[WALK_MAX];
    int length = 0;
    for (; layer; layer = layer->up)
        walk[length++] = layer;
    while (length > 0)
        if (!map_entries(map, walk[--length]))
            return false;
    return true;
}

/* A map of all that is seen from `layer` (NULL: nothing). */
static lctx_map *map_of(const lctx_layer *layer)
{
    lctx_map *map = lctx__map_new(layer ? layer->map : NULL);
    if (map && layer && layer->walk > 0 && !map_walk(map, layer)) {
        lctx__map_free(map);
        return NULL;
    }
    return map;
}

bool lctx__layer_init(lctx_layer *layer, const lctx_layer *above, size_t n, const lctx_entry *entries)
{
    *layer = (lctx_layer){.map = above ? above->map : NULL};
    if (!copy_entries(layer, n, entries))
        return false;
    size_t walk = (above ? above->walk : 0u) + (n > 0 ? n : 1);
    if (walk <= WALK_MAX) {
        layer->walk = (uint16_t)walk;
        if (above && above->walk > 0) {
            layer->up = above;
            layer->filter[0] |= above->filter[0];
            layer->filter[1] |= above->filter[1];
        }
        return true;
    }
    layer->map = map_of(above);
    layer->owns_map = true;
    layer->filter[0] = layer->filter[1] = 0;
    if (layer->map && map_entries(layer->map, layer))
        return true;
    for (size_t i = 0; i < n; i++)
        if (layer->entries[i].value.type == LCTX_POINTER)
            layer->entries[i].value.of.drop = NULL;
    lctx__layer_clear(layer);
    return false;
}

void lctx__layer_clear(lctx_layer *layer)
{
    if (layer->owns_map)
        lctx__map_free(layer->map);
    drop_entries(layer);
}

static lctx_layer *layer_of_map(lctx_map *map)
{
    lctx_layer *layer = map ? calloc(1, sizeof *layer) : NULL;
    if (layer == NULL) {
        lctx__map_free(map);
        return NULL;
    }
    layer->map = map;
    layer->owns_map = true;
    return layer;
}

lctx_layer *lctx__layer_of_custom(lctx *custom)
{
    lctx_map *map = lctx__map_new(NULL);
    if (map && !lctx__map_add_custom(map, custom)) {
        lctx__map_free(map);
        return NULL;
    }
    return layer_of_map(map);
}

static bool append_layer(lctx_map *map, const lctx_layer *layer)
{
    lctx_map *other = map_of(layer);
    bool done = other && lctx__map_append(map, other);
    lctx__map_free(other);
    return done;
}

bool lctx__layer_merge(size_t n, const lctx_layer *const *layers, const lctx_layer **layer, lctx_layer **own)
{
    size_t first = 0, distinct = 0;
    while (first < n && layers[first] == NULL)
        first++;
    for (size_t i = first; i < n; i++)
        distinct += layers[i] != NULL && layers[i] != layers[first];
    *layer = first < n ? layers[first] : NULL;
    *own = NULL;
    if (distinct == 0)
        return true;
    lctx_map *map = map_of(layers[first]);
    for (size_t i = first + 1; map && i < n; i++) {
        if (layers[i] && !append_layer(map, layers[i])) {
            lctx__map_free(map);
            return false;
        }
    }
    *layer = *own = layer_of_map(map);
    return *own != NULL;
}

void lctx__layer_free(lctx_layer *layer)
{
    if (layer == NULL)
        return;
    lctx__layer_clear(layer);
    free(layer);
}

const lctx_any *lctx__find_in_map(const lctx_map *map, const void *key, lctx_ask *ask, void *arg, lctx_any *answer)
{
    uint32_t rank = UINT32_MAX;
    const lctx_entry *entry = lctx__map_get(map, key, &rank);
    for (uint32_t i = 0; i < map->custom_count && i < rank; i++)
        if (ask(arg, map->customs[i], answer))
            return answer;
    return entry ? &entry->value : NULL;
}
