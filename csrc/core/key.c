/* SPDX-License-Identifier: MIT */
#include "key.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "refs.h"

struct lctx_key {
    lctx_refs refs;   /* 0 -> 1 never happens: lookups take the lock and skip the dying */
    uint32_t hash;    /* r/o */
    lctx_any content; /* r/o; a string's bytes follow the struct */
    bool interned;    /* r/o */
    lctx_key *next;   /* under table.lock */
};

/* Chained hash table of the interned keys. */
static struct {
    pthread_mutex_t lock;
    lctx_key **buckets;
    uint32_t mask; /* bucket count - 1 */
    uint32_t count;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint32_t hash_bytes(uint32_t hash, const void *bytes, size_t length)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ p[i]) * 16777619u;
    return hash;
}

static uint32_t hash_content(const lctx_any *content)
{
    uint32_t hash = hash_bytes(2166136261u, &content->type, 1);
    switch (content->type) {
    case LCTX_STRING:
        return hash_bytes(hash, content->as.string, content->of.length);
    case LCTX_BOOLEAN:
        return hash ^ content->as.boolean;
    default:
        return hash_bytes(hash, &content->as.integer, sizeof content->as.integer);
    }
}

static bool same_content(const lctx_any *a, const lctx_any *b)
{
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case LCTX_STRING:
        return a->of.length == b->of.length && memcmp(a->as.string, b->as.string, a->of.length) == 0;
    case LCTX_BOOLEAN:
        return a->as.boolean == b->as.boolean;
    case LCTX_NUMBER:
        return a->as.number == b->as.number;
    default:
        return a->as.integer == b->as.integer;
    }
}

static lctx_key *find_locked(const lctx_any *content, uint32_t hash)
{
    if (table.buckets == NULL)
        return NULL;
    for (lctx_key *key = table.buckets[hash & table.mask]; key; key = key->next)
        if (key->hash == hash && same_content(&key->content, content) && lctx__refs_try(&key->refs))
            return key;
    return NULL;
}

/* Doubles the table when it is full; without memory it stays as it is, and chains get longer. */
static bool grow_locked(void)
{
    if (table.buckets && table.count <= table.mask)
        return true;
    uint32_t mask = table.buckets ? table.mask * 2 + 1 : 63;
    lctx_key **buckets = calloc((size_t)mask + 1, sizeof *buckets);
    if (buckets == NULL)
        return table.buckets != NULL;
    for (uint32_t i = 0; table.buckets && i <= table.mask; i++)
        for (lctx_key *key = table.buckets[i], *next; key; key = next) {
            next = key->next;
            key->next = buckets[key->hash & mask];
            buckets[key->hash & mask] = key;
        }
    free(table.buckets);
    table.buckets = buckets;
    table.mask = mask;
    return true;
}

static lctx_key *new_key(const lctx_any *content, bool interned, uint32_t hash)
{
    size_t length = content->type == LCTX_STRING ? content->of.length : 0;
    lctx_key *key = malloc(sizeof *key + length);
    if (key == NULL)
        return NULL;
    *key = (lctx_key){.refs = 1, .hash = hash, .content = *content, .interned = interned};
    if (content->type == LCTX_STRING) {
        memcpy(key + 1, content->as.string, length);
        key->content.as.string = (const char *)(key + 1);
    }
    return key;
}

lctx_key *lctx__key_of(const lctx_any *content, bool create)
{
    uint32_t hash = hash_content(content);
    pthread_mutex_lock(&table.lock);
    lctx_key *key = find_locked(content, hash);
    if (key == NULL && create && grow_locked() && (key = new_key(content, true, hash))) {
        key->next = table.buckets[hash & table.mask];
        table.buckets[hash & table.mask] = key;
        table.count++;
    }
    pthread_mutex_unlock(&table.lock);
    return key;
}

lctx_key *lctx__key_new(const char *name, size_t length)
{
    lctx_any content = {.type = LCTX_STRING, .as.string = name, .of.length = length};
    return new_key(&content, false, 0);
}

lctx_key *lctx__key_ref(lctx_key *key)
{
    lctx__refs_take(&key->refs);
    return key;
}

static void forget(lctx_key *key)
{
    pthread_mutex_lock(&table.lock);
    lctx_key **link = &table.buckets[key->hash & table.mask];
    while (*link != key)
        link = &(*link)->next;
    *link = key->next;
    if (--table.count == 0) {
        free(table.buckets);
        table.buckets = NULL;
    }
    pthread_mutex_unlock(&table.lock);
}

void lctx__key_unref(lctx_key *key)
{
    if (key == NULL || !lctx__refs_drop(&key->refs))
        return;
    if (key->interned)
        forget(key);
    free(key);
}

const lctx_any *lctx__key_content(const lctx_key *key)
{
    return &key->content;
}

void lctx__keys_before_fork(void)
{
    pthread_mutex_lock(&table.lock);
}

void lctx__keys_after_fork(void)
{
    pthread_mutex_unlock(&table.lock);
}
