/* SPDX-License-Identifier: MIT
 *
 * timer.h - deadlines: a timing wheel and one thread for the process.
 *
 * The thread is started with the first deadline, sleeps until the next one, and is woken only for a sooner
 * one. Where no thread can be had the wheel is *unattended*: then whoever asks or waits looks at the clock.
 */
#ifndef LCTX_TIMER_H
#define LCTX_TIMER_H

#include "node.h"

#pragma GCC visibility push(hidden)

/* No thread looks after the wheel. */
extern _Atomic bool lctx__timers_unattended;

/* Puts a planted deadline scope into the wheel, unless it has ended. `now` is the monotonic clock. */
void lctx__timer_arm(lctx_deadline_scope *deadline, lctx_ns now);

/* Takes it out if it is in. */
void lctx__timer_disarm(lctx_deadline_scope *deadline);

/* Ends the scope of a deadline that has been reached. The caller holds a reference to it or below it. */
void lctx__timer_expire(lctx_deadline_scope *deadline);

/* Ends all scopes whose deadline has been reached, and returns when the next one is due (or a little
 * earlier); LCTX_NEVER: none is. */
lctx_ns lctx__timers_run(void);

/* For who is about to wait until `until`: unattended, runs what is due and returns when to look again, else
 * returns `until`. */
lctx_ns lctx__timers_attend(lctx_ns until);

/* How many are armed. */
size_t lctx__timer_count(void);

/* Lets the thread go if no timer is armed, and returns when it has gone. The next deadline starts it anew. */
void lctx__timers_rest(void);

void lctx__timers_before_fork(void);
void lctx__timers_after_fork(bool child);

#pragma GCC visibility pop
#endif
