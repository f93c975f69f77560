/* SPDX-License-Identifier: MIT
 *
 * gate.h - keeps fork() out of the middle of a walk through the tree.
 *
 * A thread that ends a whole subtree is inside the gate. fork() first closes the gate: it waits until those
 * inside have left and lets nobody in, so that the child never sees a subtree that is half ended with nobody
 * left to finish it. Inside, a thread may take stripes and the locks of the wheel, of park.c and of
 * mailboxes, and may wait for another thread that is inside; it calls nothing of the user's.
 *
 * The rest of this file's job is fork itself: all locks of the core are held while the process is copied.
 */
#ifndef LCTX_GATE_H
#define LCTX_GATE_H

void lctx__gate_enter(void);
void lctx__gate_leave(void);

#endif
