/* One system call in a tight loop, timed; the victim of `cargo xtask bench`.
 *
 *   bench_call CALL UNIT ROUNDS CALLS   says "ready", waits for a line on standard input, makes
 *                                       ROUNDS times CALLS calls, and prints
 *                                         rounds D D D ...   the length of each round, in UNIT
 *                                         errors N E=COUNT   calls that failed, by errno
 *   bench_call CALL watch               says "ready", waits for a line, then makes one call a
 *                                       millisecond until one fails with EIO, and says "fault"
 *
 * CALL is fsync, fdatasync (both of descriptor -1: EBADF from the kernel itself) or getppid.
 * UNIT is `instructions`: the time-stamp counter, which counts the guest's instructions where the
 * emulator's clock does (qemu -icount shift=0); or `ns`: CLOCK_MONOTONIC.
 * Built static and without a shortcut: every call passes syscall(2). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MOST_ROUNDS = 4096, ERRNOS = 134 };

static uint64_t lengths[MOST_ROUNDS];
static long errors[ERRNOS];

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
    fprintf(stderr, "usage: bench_call CALL instructions|ns ROUNDS CALLS, or bench_call CALL watch\n");
    return 2;
}

static void wait_for_a_line(void) {
    puts("ready");
    fflush(stdout);
    int letter;
    while ((letter = getchar()) != '\n')
        if (letter == EOF) exit(1);
}

static int watch(long number) {
    struct timespec pause = {0, 1000000};
    while (syscall(number, -1) != -1 || errno != EIO) nanosleep(&pause, NULL);
    puts("fault");
    fflush(stdout);
    while (getchar() != EOF) {
    }
    return 0;
}

int main(int count, char **words) {
    if (count < 3) return usage();
    long number = !strcmp(words[1], "fsync")       ? SYS_fsync
                  : !strcmp(words[1], "fdatasync") ? SYS_fdatasync
                  : !strcmp(words[1], "getppid")   ? SYS_getppid
                                                   : -1;
    if (number < 0) return usage();
    if (!strcmp(words[2], "watch")) {
        wait_for_a_line();
        return watch(number);
    }
    if (count != 5) return usage();
    uint64_t (*now)(void) = !strcmp(words[2], "instructions") ? instructions : nanoseconds;
    long rounds = atol(words[3]), calls = atol(words[4]);
    if (rounds < 1 || rounds > MOST_ROUNDS || calls < 1) return usage();

    wait_for_a_line();
    for (long round = 0; round < rounds; round++) {
        uint64_t before = now();
        for (long call = 0; call < calls; call++) {
            if (syscall(number, -1) < 0) errors[errno < ERRNOS ? errno : 0]++;
        }
        lengths[round] = now() - before;
    }

    printf("rounds");
    for (long round = 0; round < rounds; round++) printf(" %llu", (unsigned long long)lengths[round]);
    printf("\nerrors");
    for (int error = 0; error < ERRNOS; error++)
        if (errors[error]) printf(" %d=%ld", error, errors[error]);
    printf("\n");
    return 0;
}
