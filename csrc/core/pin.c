/* SPDX-License-Identifier: MIT */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "pin.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Linked into a program there is nothing to pin: then dlopen finds no such library, or the program itself. */
void lctx__pin_library(void)
{
    static _Atomic bool pinned;
    Dl_info self;
    if (atomic_load(&pinned) || !dladdr((void *)&pinned, &self) || !self.dli_fname)
        return;
    if (dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE))
        atomic_store(&pinned, true);
}
