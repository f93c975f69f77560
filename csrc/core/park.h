/* SPDX-License-Identifier: MIT
 *
 * park.h - where threads sleep until the state of a scope changes.
 *
 * A few mutex and condition pairs for the whole process: a scope needs none of its own, and almost no scope
 * is ever waited on by a thread. Sleepers of different scopes may share a pair; each looks for itself.
 *
 * Protocol: the sleeper sets head.parked under the scope's stripe and sees there that the change has not
 * happened yet. The changer reads parked under the same stripe, after its change, and then wakes. The change
 * is an atomic store, made before the wake takes the pair's mutex: so no wake-up is lost.
 */
#ifndef LCTX_PARK_H
#define LCTX_PARK_H

#include "clock.h"
#include "node.h"

#pragma GCC visibility push(hidden)

/* Sleeps until the scope has ended, or until the instant `until`; says whether it has ended. */
bool lctx__park_until_ended(lctx_scope *scope, lctx_ns until);

/* Sleeps until the thread that ended the scope has ended everything below it. */
void lctx__park_while_busy(lctx_scope *scope);

/* Wakes the sleepers of the scope. No stripe is held. */
void lctx__park_wake(const lctx_scope *scope);

void lctx__park_before_fork(void);
void lctx__park_after_fork(bool child);

#pragma GCC visibility pop
#endif
