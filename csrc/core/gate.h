/* SPDX-License-Identifier: MIT
 *
 * gate.h - keeps fork() out of the middle of a walk through the tree.
 *
 * A thread that ends a whole subtree is inside the gate. fork() first closes the gate: it waits until those
 * inside have left and lets nobody in, so that the child never sees a subtree that is half ended with nobody
 * left to finish it. Inside, a thread may take stripes and the locks of the wheel, of park.c and of
 * mailboxes, and may wait for another thread that is inside; it calls nothing of the user's.
 *
 * The second thing that walks need of each other is to settle: a walk that has come upon a scope which another
 * walk is still busy with does not wait there (with merges, two walks may come upon scopes of each other). It
 * does its own part to the end, says so, and then waits for the parts of all walks that are under way. Nobody
 * waits in the middle of a part, so every part ends.
 *
 * The rest of this file's job is fork itself: all locks of the core are held while the process is copied.
 */
#ifndef LCTX_GATE_H
#define LCTX_GATE_H

#include <stdbool.h>

#pragma GCC visibility push(hidden)

void lctx__gate_enter(void);
void lctx__gate_leave(void);

/* Brackets around the own part of a walk, inside the gate; tangled: it has come upon another walk. */
unsigned lctx__part_begin(void);
void lctx__part_end(unsigned part, bool tangled);

/* Waits until all parts that have begun, and those that they have come upon, have ended. Not within a part. */
void lctx__settle(void);

#pragma GCC visibility pop
#endif
