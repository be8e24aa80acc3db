/* One system call in several threads, each of which times it; the victim of `cargo xtask bench delay`.
 *
 *   bench_delay THREADS CALLS [NS]   says "ready", waits for a line on standard input, makes CALLS calls in each of
 *                                    THREADS threads, and prints a line "took NS" for each of them, in nanoseconds
 *                                    of CLOCK_MONOTONIC
 *
 * The call is fsync(-1), or with NS clock_nanosleep(2) for so long. Threads begin each call together. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long threads, calls, sleeps_ns = -1;
static pthread_barrier_t barrier;
static uint64_t *took;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void *run(void *place) {
    uint64_t *mine = place;
    for (long call = 0; call < calls; call++) {
        if (threads > 1) pthread_barrier_wait(&barrier);
        uint64_t before = now_ns();
        if (sleeps_ns < 0) {
            syscall(SYS_fsync, -1);
        } else {
            struct timespec span = {sleeps_ns / 1000000000, sleeps_ns % 1000000000};
            clock_nanosleep(CLOCK_MONOTONIC, 0, &span, NULL);
        }
        mine[call] = now_ns() - before;
    }
    return NULL;
}

int main(int count, char **words) {
    if (count < 3) {
        fprintf(stderr, "usage: bench_delay THREADS CALLS [NS]\n");
        return 2;
    }
    threads = strtol(words[1], NULL, 10);
    calls = strtol(words[2], NULL, 10);
    if (count > 3) sleeps_ns = strtol(words[3], NULL, 10);
    took = calloc((size_t)(threads * calls), sizeof *took);
    pthread_t *ids = calloc((size_t)threads, sizeof *ids);
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    puts("ready");
    fflush(stdout);
    int letter;
    while ((letter = getchar()) != '\n')
        if (letter == EOF) return 1;
    for (long i = 0; i < threads; i++) pthread_create(&ids[i], NULL, run, took + i * calls);
    for (long i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    for (long i = 0; i < threads * calls; i++) printf("took %llu\n", (unsigned long long)took[i]);
    fflush(stdout);
    while (getchar() != EOF) {
    }
    return 0;
}
