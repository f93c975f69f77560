/* SPDX-License-Identifier: MIT */
#include "bell.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#endif

static struct {
    pthread_mutex_t mutex;
    lctx_link *all;
} registry = {.mutex = PTHREAD_MUTEX_INITIALIZER};

#ifdef __linux__

static bool open_descriptors(lctx_bell *bell)
{
    bell->fd = bell->ringer = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return bell->fd >= 0;
}

#else

static void prepare(int fd)
{
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static bool open_descriptors(lctx_bell *bell)
{
    int ends[2];
    if (pipe(ends) != 0)
        return false;
    prepare(ends[0]);
    prepare(ends[1]);
    bell->fd = ends[0];
    bell->ringer = ends[1];
    return true;
}

#endif

static void close_descriptors(lctx_bell *bell)
{
    if (bell->ringer != bell->fd)
        close(bell->ringer);
    close(bell->fd);
    bell->fd = bell->ringer = -1;
}

bool lctx__bell_open(lctx_bell *bell)
{
    if (!open_descriptors(bell))
        return false;
    atomic_store(&bell->rung, false);
    pthread_mutex_lock(&registry.mutex);
    lctx__list_append(&registry.all, &bell->all);
    pthread_mutex_unlock(&registry.mutex);
    return true;
}

void lctx__bell_close(lctx_bell *bell)
{
    if (bell->fd < 0)
        return;
    pthread_mutex_lock(&registry.mutex);
    lctx__list_remove(&registry.all, &bell->all);
    pthread_mutex_unlock(&registry.mutex);
    close_descriptors(bell);
}

/* Eight bytes, as an eventfd wants it. A pipe that is full is readable, which is all that counts. */
static void write_ring(const lctx_bell *bell)
{
    const uint64_t one = 1;
    if (write(bell->ringer, &one, sizeof one) < 0)
        return;
}

void lctx__bell_ring(lctx_bell *bell)
{
    if (bell->fd < 0)
        return;
    atomic_store(&bell->rung, true);
    write_ring(bell);
}

void lctx__bell_hush(lctx_bell *bell)
{
    uint64_t rings[8];
    if (bell->fd < 0)
        return;
    atomic_store(&bell->rung, false);
    while (read(bell->fd, rings, sizeof rings) == sizeof rings)
        continue;
}

/* ---- fork ------------------------------------------------------------------------------------------------- */

static void take_over(int own, int number)
{
    dup2(own, number);
    fcntl(number, F_SETFD, FD_CLOEXEC);
}

/* Without a descriptor to spare, what was inherited is given up first: this process must not ring in the parent. What
 * is opened then has the same number, unless the limit has come to lie below it. */
static bool reopen(lctx_bell *bell)
{
    close_descriptors(bell);
    return open_descriptors(bell);
}

static bool renew(lctx_bell *bell)
{
    lctx_bell own = LCTX_BELL_CLOSED;
    if (open_descriptors(&own)) {
        take_over(own.fd, bell->fd);
        if (bell->ringer != bell->fd)
            take_over(own.ringer, bell->ringer);
        close_descriptors(&own);
    } else if (!reopen(bell)) {
        return false;
    }
    if (atomic_load(&bell->rung))
        write_ring(bell);
    return true;
}

void lctx__bells_before_fork(void)
{
    pthread_mutex_lock(&registry.mutex);
}

static void renew_all(void)
{
    lctx_link *old = registry.all;
    registry.all = NULL;
    while (old) {
        lctx_bell *bell = LCTX_CONTAINER(old, lctx_bell, all);
        lctx__list_remove(&old, &bell->all);
        if (renew(bell))
            lctx__list_append(&registry.all, &bell->all);
    }
}

void lctx__bells_after_fork(bool child)
{
    if (child)
        renew_all();
    pthread_mutex_unlock(&registry.mutex);
}
