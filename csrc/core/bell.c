/* SPDX-License-Identifier: MIT */
#include "bell.h"

#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#endif

#ifdef __linux__

bool lctx__bell_open(lctx_bell *bell)
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

bool lctx__bell_open(lctx_bell *bell)
{
    int ends[2];
    if (pipe(ends) != 0)
        return false;
    prepare(ends[0]);
    prepare(ends[1]);
    *bell = (lctx_bell){ends[0], ends[1]};
    return true;
}

#endif

void lctx__bell_close(lctx_bell *bell)
{
    if (bell->fd < 0)
        return;
    if (bell->ringer != bell->fd)
        close(bell->ringer);
    close(bell->fd);
    *bell = (lctx_bell)LCTX_BELL_CLOSED;
}

/* Eight bytes, as an eventfd wants it. A pipe that is full is readable, which is all that counts. */
void lctx__bell_ring(const lctx_bell *bell)
{
    const uint64_t one = 1;
    if (bell->fd >= 0 && write(bell->ringer, &one, sizeof one) < 0)
        return;
}

void lctx__bell_hush(const lctx_bell *bell)
{
    uint64_t rings[8];
    if (bell->fd < 0)
        return;
    while (read(bell->fd, rings, sizeof rings) == sizeof rings)
        continue;
}

void lctx__bell_renew(lctx_bell *bell)
{
    lctx_bell fresh;
    if (bell->fd < 0 || !lctx__bell_open(&fresh))
        return;
    dup2(fresh.fd, bell->fd);
    fcntl(bell->fd, F_SETFD, FD_CLOEXEC);
    if (bell->ringer != bell->fd) {
        dup2(fresh.ringer, bell->ringer);
        fcntl(bell->ringer, F_SETFD, FD_CLOEXEC);
    }
    lctx__bell_close(&fresh);
}
