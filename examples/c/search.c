/* Contexts in a C program without Lua: several threads look for the same thing, the first that finds it ends the
 * others, and a deadline or Ctrl-C ends all of them.
 *
 *     cc search.c $(pkg-config --cflags --libs lcontext) -o search
 *     ./search [SECONDS]
 */
#include <lcontext.h>

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 4, SLICE = 100000 };

static const uint64_t TARGET = UINT64_C(0xC0FFEE);

typedef struct search {
    lctx *ctx;
    uint64_t first; /* this thread tries first, first + THREADS, ... */
} search;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

/* Works in slices: asking the context is one load, but not for nothing. */
static void *look(void *arg)
{
    const search *self = arg;
    uint64_t x = self->first;
    while (lctx_err(self->ctx) == LCTX_LIVE)
        for (int i = 0; i < SLICE; i++, x += THREADS)
            if ((mix(x) & 0xFFFFFF) == TARGET) {
                const lctx_any found = {.type = LCTX_INTEGER, .as.integer = (int64_t)x};
                lctx_cancel_cause(self->ctx, &found); /* the first end wins */
                return NULL;
            }
    return NULL;
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

/* A signal handler may not use the library: who waits looks at what it has left. */
static void wait_for_end(lctx *ctx)
{
    while (!lctx_wait(ctx, 0.05))
        if (interrupted) {
            const lctx_any why = {.type = LCTX_STRING, .as.string = "interrupted", .of.length = 11};
            lctx_cancel_cause(ctx, &why);
        }
}

static int report(lctx *ctx)
{
    char why[64];
    lctx_any found;
    if (lctx_cause(ctx, &found) && found.type == LCTX_INTEGER) {
        printf("found: mix(%lld) ends in %llx\n", (long long)found.as.integer, (unsigned long long)TARGET);
        return 0;
    }
    lctx_cause_text(ctx, why, sizeof why);
    printf("given up: %s\n", why);
    return 1;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 10;
    pthread_t threads[THREADS];
    search searches[THREADS];
    lctx *ctx = lctx_with_timeout(lctx_background(), seconds, NULL);
    if (ctx == NULL) {
        perror("lctx_with_timeout");
        return 2;
    }
    signal(SIGINT, on_interrupt);
    for (int i = 0; i < THREADS; i++) {
        searches[i] = (search){ctx, (uint64_t)i};
        pthread_create(&threads[i], NULL, look, &searches[i]);
    }
    wait_for_end(ctx);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    int status = report(ctx);
    lctx_unref(ctx);
    return status;
}
