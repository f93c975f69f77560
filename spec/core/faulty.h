/* SPDX-License-Identifier: MIT
 *
 * faulty.h - memory that runs out: of what the C code of a test and the library allocate, one is made to fail. To be
 * linked with -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=free; what shared libraries allocate is not
 * touched.
 */
#ifndef FAULTY_H
#define FAULTY_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);

/* Of this thread: so a test knows which allocation it is. */
static _Thread_local long countdown; /* the allocation that makes it 0 fails; below 0: all do */
static _Thread_local bool failed;    /* one did */
static _Thread_local bool is_other = true;
static atomic_long countdown_elsewhere; /* the same for all threads that have not cleared is_other */
static atomic_long allocations, blocks;

static bool fails_elsewhere(void)
{
    long left = is_other ? atomic_load(&countdown_elsewhere) : 0;
    return left < 0 || (left > 0 && atomic_fetch_sub(&countdown_elsewhere, 1) == 1);
}

static bool fails(void)
{
    atomic_fetch_add(&allocations, 1);
    bool fail = countdown < 0 || (countdown > 0 && --countdown == 0) || fails_elsewhere();
    if (fail) {
        failed = true;
        errno = ENOMEM;
    }
    return fail;
}

static void *counted(void *block)
{
    atomic_fetch_add(&blocks, block != NULL);
    return block;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : counted(__real_calloc(n, size));
}

void *__wrap_realloc(void *block, size_t size)
{
    if (fails())
        return NULL;
    void *moved = __real_realloc(block, size);
    atomic_fetch_add(&blocks, block == NULL && moved != NULL);
    return moved;
}

void __wrap_free(void *block)
{
    atomic_fetch_sub(&blocks, block != NULL);
    __real_free(block);
}

#endif
