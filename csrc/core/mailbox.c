/* SPDX-License-Identifier: MIT
 *
 * Locks. mailbox.mutex guards a mailbox; registry.mutex guards the list of all that are open, which are locked
 * for a fork. registry before mailbox before the registry of bells. The mutex of one that is closed is taken
 * only by who posts from a walk, inside the gate, which fork closes first.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "mailbox.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

#include "bell.h"
#include "timer.h"

struct lctx_mailbox {
    lctx_refs refs;   /* the owner's, and one for each note that is registered, under way or queued */
    _Atomic bool due; /* written under mutex: the queue is not empty */
    bool closed;      /* mutex */
    pthread_mutex_t mutex;
    pthread_cond_t posted;
    lctx_link *queue; /* mutex: notes, the oldest first */
    lctx_bell bell;   /* mutex: opened when somebody asks; rung while something is due */
    lctx_link all;    /* registry.mutex */
};

static struct {
    pthread_mutex_t mutex;
    lctx_link *all;
} registry = {.mutex = PTHREAD_MUTEX_INITIALIZER};

lctx_mailbox *lctx__mailbox_new(void)
{
    lctx_mailbox *mailbox = calloc(1, sizeof *mailbox);
    if (mailbox == NULL)
        return NULL;
    atomic_init(&mailbox->refs, 1);
    pthread_mutex_init(&mailbox->mutex, NULL);
    lctx__cond_init(&mailbox->posted);
    mailbox->bell.fd = mailbox->bell.ringer = -1;
    pthread_mutex_lock(&registry.mutex);
    lctx__list_append(&registry.all, &mailbox->all);
    pthread_mutex_unlock(&registry.mutex);
    return mailbox;
}

static void unref(lctx_mailbox *mailbox)
{
    if (!lctx__refs_drop(&mailbox->refs))
        return;
    pthread_mutex_destroy(&mailbox->mutex);
    pthread_cond_destroy(&mailbox->posted);
    free(mailbox);
}

static void update_due(lctx_mailbox *mailbox)
{
    atomic_store_explicit(&mailbox->due, mailbox->queue != NULL, memory_order_release);
}

void lctx__mailbox_close(lctx_mailbox *mailbox)
{
    pthread_mutex_lock(&registry.mutex);
    pthread_mutex_lock(&mailbox->mutex);
    lctx__list_remove(&registry.all, &mailbox->all);
    mailbox->closed = true;
    lctx_link *left = mailbox->queue;
    mailbox->queue = NULL;
    update_due(mailbox);
    lctx__bell_close(&mailbox->bell);
    pthread_mutex_unlock(&mailbox->mutex);
    pthread_mutex_unlock(&registry.mutex);

    while (left) {
        lctx_after *note = lctx__after_of(left);
        lctx__list_remove(&left, &note->link);
        lctx__after_unref(note);
        unref(mailbox);
    }
    unref(mailbox);
}

static void post(lctx_after *note, void *arg)
{
    lctx_mailbox *mailbox = arg;
    pthread_mutex_lock(&mailbox->mutex);
    bool closed = mailbox->closed;
    if (!closed) {
        bool first = mailbox->queue == NULL;
        lctx__list_append(&mailbox->queue, &note->link);
        update_due(mailbox);
        if (first) { /* who is woken must find it */
            lctx__bell_ring(&mailbox->bell);
            pthread_cond_signal(&mailbox->posted);
        }
    }
    pthread_mutex_unlock(&mailbox->mutex);
    if (closed) {
        lctx__after_unref(note);
        unref(mailbox);
    }
}

void lctx__mailbox_put_back(lctx_after *note)
{
    lctx_mailbox *mailbox = note->arg;
    lctx__refs_take(&mailbox->refs);
    post(note, mailbox);
}

lctx_after *lctx__mailbox_register(lctx_mailbox *mailbox, lctx *ctx, lctx_kind kind, intptr_t tag)
{
    lctx_after *note = lctx__after_new(kind, post, mailbox, true);
    if (note == NULL)
        return NULL;
    note->tag = tag;
    lctx__refs_take(&mailbox->refs);
    if (lctx__scope_of(ctx) == NULL)
        unref(mailbox); /* it will never be posted */
    if (!lctx__after_link(note, ctx))
        post(note, mailbox);
    return note;
}

bool lctx__mailbox_stop(lctx_after *note)
{
    bool listed = note->scope != NULL;
    if (!lctx__after_stop(note))
        return false;
    if (listed)
        unref(note->arg);
    return true;
}

lctx_after *lctx__mailbox_take(lctx_mailbox *mailbox)
{
    if (!lctx__mailbox_is_due(mailbox))
        return NULL;
    pthread_mutex_lock(&mailbox->mutex);
    lctx_after *note = mailbox->queue ? lctx__after_of(mailbox->queue) : NULL;
    if (note) {
        lctx__list_remove(&mailbox->queue, &note->link);
        if (mailbox->queue == NULL)
            lctx__bell_hush(&mailbox->bell);
        update_due(mailbox);
    }
    pthread_mutex_unlock(&mailbox->mutex);
    if (note)
        unref(mailbox);
    return note;
}

bool lctx__mailbox_is_due(const lctx_mailbox *mailbox)
{
    return atomic_load_explicit(&mailbox->due, memory_order_acquire);
}

/* Poll rather than the condition where there is a descriptor: a signal interrupts it. */
static bool wait_for_bell(int fd, lctx_ns until)
{
    struct pollfd bell = {.fd = fd, .events = POLLIN};
    lctx_ns now = lctx__monotonic(), left = until > now ? until - now : 0;
#ifdef __linux__
    struct timespec time = lctx__timespec(left);
    int ready = ppoll(&bell, 1, until == LCTX_NEVER ? NULL : &time, NULL);
#else
    lctx_ns ms = left / 1000000 + (left % 1000000 != 0);
    int ready = poll(&bell, 1, until == LCTX_NEVER ? -1 : ms > 1000000 ? 1000000 : (int)ms);
#endif
    return ready >= 0 || errno != EINTR;
}

static void wait_for_condition(lctx_mailbox *mailbox, lctx_ns until)
{
    struct timespec time = lctx__timespec(until > 0 ? until : 0);
    pthread_mutex_lock(&mailbox->mutex);
    while (mailbox->queue == NULL && lctx__monotonic() < until) {
        if (until == LCTX_NEVER)
            pthread_cond_wait(&mailbox->posted, &mailbox->mutex);
        else
            pthread_cond_timedwait(&mailbox->posted, &mailbox->mutex, &time);
    }
    pthread_mutex_unlock(&mailbox->mutex);
}

bool lctx__mailbox_wait(lctx_mailbox *mailbox, lctx_ns until)
{
    int fd = lctx__mailbox_fd(mailbox);
    until = lctx__timers_attend(until);
    if (lctx__mailbox_is_due(mailbox) || until <= lctx__monotonic())
        return true;
    if (fd >= 0)
        return wait_for_bell(fd, until);
    wait_for_condition(mailbox, until);
    return true;
}

int lctx__mailbox_fd(lctx_mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->mutex);
    if (mailbox->bell.fd < 0 && !mailbox->closed && lctx__bell_open(&mailbox->bell) && mailbox->queue)
        lctx__bell_ring(&mailbox->bell);
    int fd = mailbox->bell.fd;
    pthread_mutex_unlock(&mailbox->mutex);
    return fd;
}

static void for_each_mailbox(void (*f)(lctx_mailbox *))
{
    lctx_link *link = registry.all;
    if (link == NULL)
        return;
    do {
        lctx_link *next = link->next;
        f(LCTX_CONTAINER(link, lctx_mailbox, all));
        link = next;
    } while (link != registry.all);
}

static void lock_mailbox(lctx_mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->mutex);
}

static void unlock_mailbox(lctx_mailbox *mailbox)
{
    pthread_mutex_unlock(&mailbox->mutex);
}

static void renew_mailbox(lctx_mailbox *mailbox)
{
    lctx__cond_init(&mailbox->posted); /* forgets waiters that are not in this process */
}

void lctx__mailboxes_before_fork(void)
{
    pthread_mutex_lock(&registry.mutex);
    for_each_mailbox(lock_mailbox);
}

void lctx__mailboxes_after_fork(bool child)
{
    if (child)
        for_each_mailbox(renew_mailbox);
    for_each_mailbox(unlock_mailbox);
    pthread_mutex_unlock(&registry.mutex);
}
