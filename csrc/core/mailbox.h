/* SPDX-License-Identifier: MIT
 *
 * mailbox.h - what is due in one event loop: callbacks whose contexts have ended, posted by any thread, taken
 * by one, the owner. The Lua binding has one for each Lua state: one descriptor, however many contexts are
 * waited on.
 */
#ifndef LCTX_MAILBOX_H
#define LCTX_MAILBOX_H

#include "after.h"

#pragma GCC visibility push(hidden)

typedef struct lctx_mailbox lctx_mailbox;

/* NULL with ENOMEM. */
lctx_mailbox *lctx__mailbox_new(void);

/* The owner leaves. What it has not taken, and what is posted from now on, is dropped. */
void lctx__mailbox_close(lctx_mailbox *mailbox);

/* Registers a note (LCTX_KIND_CALLBACK, _WAITER or _ALARM, with a tag) that is posted when ctx ends; at once
 * if it has ended. The result is the caller's reference, for lctx__mailbox_stop and lctx__after_unref. NULL
 * with ENOMEM. */
lctx_after *lctx__mailbox_register(lctx_mailbox *mailbox, lctx *ctx, lctx_kind kind, intptr_t tag);

/* lctx__after_stop for a note. */
bool lctx__mailbox_stop(lctx_after *note);

/* Takes the oldest note, with a reference for lctx__after_unref; NULL if there is none. */
lctx_after *lctx__mailbox_take(lctx_mailbox *mailbox);

/* Posts a note that was taken again. Its mailbox is open. */
void lctx__mailbox_put_back(lctx_after *note);

/* Whether there is something to take: exact for what this thread has caused, else a hint. One load. */
bool lctx__mailbox_is_due(const lctx_mailbox *mailbox);

/* Blocks the owner until something is due, until the instant `until` at the latest; it may return earlier for
 * no reason. False if a signal has interrupted it. */
bool lctx__mailbox_wait(lctx_mailbox *mailbox, lctx_ns until);

/* The descriptor that is readable while something is due; -1 with errno. It belongs to the mailbox. */
int lctx__mailbox_fd(lctx_mailbox *mailbox);

void lctx__mailboxes_before_fork(void);
void lctx__mailboxes_after_fork(bool child);

#pragma GCC visibility pop
#endif
