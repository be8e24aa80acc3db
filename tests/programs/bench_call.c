/* One system call in a tight loop, timed; the victim of `cargo xtask bench`.
 *
 *   bench_call CALL UNIT ROUNDS CALLS [THREADS]
 *                                       says "ready", waits for a line on standard input, makes
 *                                       ROUNDS times CALLS calls in each of THREADS threads (1), and
 *                                       prints
 *                                         rounds D D D ...   the length of each round, in UNIT
 *                                         errors N E=COUNT   calls that failed, by errno
 *   bench_call CALL watch               says "ready", waits for a line, then makes one call a
 *                                       millisecond until one fails with EIO, and says "fault"
 *
 * CALL is fsync, fdatasync (both of descriptor -1: EBADF from the kernel itself) or getppid.
 * UNIT is `instructions`: the time-stamp counter, which counts the guest's instructions where the
 * emulator's clock does (qemu -icount shift=0); or `ns`: CLOCK_MONOTONIC.
 * Threads wait for each other before and after each round, whose length is that of the slowest. They
 * are made after the line, so that a tool which attaches sees their start.
 * Built static and without a shortcut: every call passes syscall(2). */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MOST_ROUNDS = 4096, MOST_THREADS = 64, ERRNOS = 134 };

static uint64_t lengths[MOST_ROUNDS];
static long errors[MOST_THREADS][ERRNOS];
static long number, rounds, calls, threads = 1;
static pthread_barrier_t barrier;

static uint64_t instructions(void) {
    uint32_t low, high;
    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (uint64_t)high << 32 | low;
}

static uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int usage(void) {
    fprintf(stderr,
            "usage: bench_call CALL instructions|ns ROUNDS CALLS [THREADS], or bench_call CALL watch\n");
    return 2;
}

static void wait_for_a_line(void) {
    puts("ready");
    fflush(stdout);
    int letter;
    while ((letter = getchar()) != '\n')
        if (letter == EOF) exit(1);
}

static int watch(void) {
    struct timespec pause = {0, 1000000};
    while (syscall(number, -1) != -1 || errno != EIO) nanosleep(&pause, NULL);
    puts("fault");
    fflush(stdout);
    while (getchar() != EOF) {
    }
    return 0;
}

static void make_calls(long *failed) {
    for (long call = 0; call < calls; call++) {
        if (syscall(number, -1) < 0) failed[errno < ERRNOS ? errno : 0]++;
    }
}

static void meet(void) {
    if (threads > 1) pthread_barrier_wait(&barrier);
}

static void *follow(void *failed) {
    for (long round = 0; round < rounds; round++) {
        meet();
        make_calls(failed);
        meet();
    }
    return NULL;
}

int main(int count, char **words) {
    if (count < 3) return usage();
    number = !strcmp(words[1], "fsync")       ? SYS_fsync
             : !strcmp(words[1], "fdatasync") ? SYS_fdatasync
             : !strcmp(words[1], "getppid")   ? SYS_getppid
                                              : -1;
    if (number < 0) return usage();
    if (!strcmp(words[2], "watch")) {
        wait_for_a_line();
        return watch();
    }
    if (count != 5 && count != 6) return usage();
    uint64_t (*now)(void) = !strcmp(words[2], "instructions") ? instructions : nanoseconds;
    rounds = atol(words[3]);
    calls = atol(words[4]);
    if (count == 6) threads = atol(words[5]);
    if (rounds < 1 || rounds > MOST_ROUNDS || calls < 1) return usage();
    if (threads < 1 || threads > MOST_THREADS) return usage();

    wait_for_a_line();
    pthread_t others[MOST_THREADS];
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    for (long thread = 1; thread < threads; thread++)
        if (pthread_create(&others[thread], NULL, follow, errors[thread]) != 0) return 1;
    for (long round = 0; round < rounds; round++) {
        meet();
        uint64_t before = now();
        make_calls(errors[0]);
        meet();
        lengths[round] = now() - before;
    }
    for (long thread = 1; thread < threads; thread++) pthread_join(others[thread], NULL);

    printf("rounds");
    for (long round = 0; round < rounds; round++) printf(" %llu", (unsigned long long)lengths[round]);
    printf("\nerrors");
    for (int error = 0; error < ERRNOS; error++) {
        long sum = 0;
        for (long thread = 0; thread < threads; thread++) sum += errors[thread][error];
        if (sum) printf(" %d=%ld", error, sum);
    }
    printf("\n");
    return 0;
}
