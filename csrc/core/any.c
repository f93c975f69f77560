/* SPDX-License-Identifier: MIT */
#include "any.h"

#include <stdlib.h>
#include <string.h>

bool lctx__any_copy_string(lctx_any *to, const lctx_any *from)
{
    if (from->of.length == 0)
        return true;
    char *bytes = malloc(from->of.length);
    to->as.string = bytes;
    if (bytes) {
        memcpy(bytes, from->as.string, from->of.length);
        return true;
    }
    to->type = LCTX_NIL;
    return false;
}

void lctx__any_drop_owned(lctx_any *any)
{
    if (any->type == LCTX_STRING && any->of.length > 0)
        free((char *)any->as.string);
    else if (any->type == LCTX_POINTER && any->of.drop)
        any->of.drop(any->as.pointer);
}

lctx_reason *lctx__reason_new(const lctx_any *value)
{
    lctx_reason *reason = malloc(sizeof *reason);
    if (reason == NULL)
        return NULL;
    atomic_init(&reason->refs, 1);
    atomic_init(&reason->text, NULL);
    if (!lctx__any_copy(&reason->value, value)) {
        free(reason);
        return NULL;
    }
    reason->value.reserved = 0;
    if (value->type == LCTX_OBJECT && value->reserved == LCTX_ANY_DESCRIBED) {
        const lctx_described *described = (const lctx_described *)value;
        if (!lctx__reason_describe(reason, described->text, described->length)) {
            free(reason);
            return NULL;
        }
    }
    return reason;
}

bool lctx__reason_describe(lctx_reason *reason, const char *text, size_t length)
{
    lctx_text *copy = malloc(sizeof *copy + length), *nothing = NULL;
    if (copy == NULL)
        return false;
    copy->length = length;
    memcpy(copy->bytes, text, length);
    if (!atomic_compare_exchange_strong(&reason->text, &nothing, copy))
        free(copy);
    return true;
}

void lctx__reason_unref(lctx_reason *reason)
{
    if (reason == NULL || !lctx__refs_drop(&reason->refs))
        return;
    lctx__any_drop(&reason->value);
    free(atomic_load_explicit(&reason->text, memory_order_relaxed));
    free(reason);
}
