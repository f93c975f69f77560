/* SPDX-License-Identifier: MIT
 *
 * public.h - lcontext.h, as the library itself includes it.
 *
 * In the Lua module its functions are hidden: a host may have linked liblcontext, and the module must not be bound to
 * that copy. liblcontext is built with LCTX_SHARED, and shows them. What all other headers declare is hidden in both,
 * by a pragma in each, which also makes calls from file to file direct.
 */
#ifndef LCTX_PUBLIC_H
#define LCTX_PUBLIC_H

#if !defined(LCTX_SHARED) && defined(__GNUC__)
#define LCTX_API __attribute__((visibility("hidden")))
#endif

#include "lcontext.h"

/* For what is seldom called from where every instruction counts: in there it would cost the others registers. */
#ifdef __GNUC__
#define LCTX_APART __attribute__((noinline))
#else
#define LCTX_APART
#endif

#endif
