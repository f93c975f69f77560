/* SPDX-License-Identifier: MIT
 *
 * tree_values.h - values and causes: a number tells which, in whatever type it is. 0 is nil.
 */
#ifndef TREE_VALUES_H
#define TREE_VALUES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/core/lcontext.h"
#include "tree_model.h"

enum { VALUES_MADE = 4096 };

static int values_made, pointers_made, pointers_dropped;
static char cells[VALUES_MADE];
static char keys[KEYS];

static void drop_cell(void *cell)
{
    (void)cell;
    pointers_dropped++;
}

static lctx_any value_of(int number)
{
    static char text[16];
    lctx_any any = {.type = LCTX_NIL};
    if (number == 0)
        return any;
    switch (number % 3) {
    case 0:
        any = (lctx_any){.type = LCTX_INTEGER, .as.integer = number};
        break;
    case 1:
        any = (lctx_any){.type = LCTX_STRING, .as.string = text, .of.length = (size_t)sprintf(text, "%d", number)};
        break;
    default:
        any = (lctx_any){.type = LCTX_POINTER, .as.pointer = &cells[number], .of.drop = drop_cell};
    }
    return any;
}

static int number_of(const lctx_any *any)
{
    char text[16] = "";
    switch (any->type) {
    case LCTX_INTEGER:
        return (int)any->as.integer;
    case LCTX_STRING:
        memcpy(text, any->as.string, any->of.length < 15 ? any->of.length : 15);
        return atoi(text);
    case LCTX_POINTER:
        return (int)((char *)any->as.pointer - cells);
    default:
        return 0;
    }
}

#endif
