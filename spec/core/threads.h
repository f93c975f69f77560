/* SPDX-License-Identifier: MIT
 *
 * threads.h - a few threads that meet at points.
 */
#ifndef THREADS_H
#define THREADS_H

#include <pthread.h>
#include <sched.h>

#include "check.h"

enum { MOST_THREADS = 32 };

typedef struct member {
    int index, size; /* of the team */
    void (*run)(struct member *);
    void *shared;
    pthread_t thread;
} member;

static atomic_int meeting_arrived, meeting_round;

/* Returns when all of the team have come here. They leave within a few instructions of each other. */
static inline void meet(const member *m)
{
    int round = atomic_load(&meeting_round);
    if (atomic_fetch_add(&meeting_arrived, 1) + 1 == m->size) {
        atomic_store(&meeting_arrived, 0);
        atomic_store(&meeting_round, round + 1);
    }
    while (atomic_load(&meeting_round) == round)
        sched_yield();
}

static inline void *run_member(void *arg)
{
    member *m = arg;
    m->run(m);
    return NULL;
}

/* Runs run(0) .. run(size - 1), each in a thread of its own, and returns when all have returned. */
static inline void in_threads(int size, void (*run)(member *), void *shared)
{
    member team[MOST_THREADS];
    for (int i = 0; i < size; i++) {
        team[i] = (member){.index = i, .size = size, .run = run, .shared = shared};
        if (!CHECK(pthread_create(&team[i].thread, NULL, run_member, &team[i]) == 0))
            abort();
    }
    for (int i = 0; i < size; i++)
        pthread_join(team[i].thread, NULL);
}

#endif
