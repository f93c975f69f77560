/* SPDX-License-Identifier: MIT
 *
 * copy.h - two copies of the core in one process would be two trees that do not know each other.
 */
#ifndef LCTX_COPY_H
#define LCTX_COPY_H

#pragma GCC visibility push(hidden)

/* The file of another copy of the core that is loaded in this process ("" for the program itself); NULL if there is
 * none. Can tell on ELF systems with dl_iterate_phdr only. The name belongs to the loader. */
const char *lctx__other_copy(void);

#pragma GCC visibility pop
#endif
