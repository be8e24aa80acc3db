/* Calls and calls, and says what came of it: for finjects that come and go while it does.
 *
 *   storm T CALL   T threads make CALL until standard input ends, and one more has a child at a time,
 *                  which makes it once. For each line of standard input it prints a lap, which is what
 *                  there was to see since the line before:
 *
 *                  lap calls=N least=N failed=N enosys=N other=N children=N lost=N
 *
 *                  least: the fewest calls that one of the threads made; failed: calls that failed with
 *                  EIO; enosys, other: with ENOSYS, with anything else; children: those that ended as
 *                  they should; lost: those that did not
 *
 * CALL is one of getppid fsync, or spin for threads that only compute and have no children. At the end
 * of standard input it prints "whole" when all of them have come to their end. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 64 };
/* What became of a call, and the status of a child that made it. */
enum { WORKED, FAILED, LACKING, OTHER, OUTCOMES };

static atomic_long outcomes[OUTCOMES], calls[THREADS], children, lost;
static atomic_int ended;
static const char *call;
static int file;

static int one_call(void) {
    long result = !strcmp(call, "fsync") ? fsync(file) : syscall(SYS_getppid);
    if (result >= 0) return WORKED;
    return errno == EIO ? FAILED : errno == ENOSYS ? LACKING : OTHER;
}

static void *caller(void *number) {
    while (!ended) {
        outcomes[one_call()]++;
        calls[(long)number]++;
    }
    return NULL;
}

static void *computer(void *number) {
    volatile unsigned long value = 1;
    while (!ended) {
        for (int i = 0; i < 100000; i++) value = value * 6364136223846793005UL + 1;
        calls[(long)number]++;
    }
    return NULL;
}

static void *parent(void *unused) {
    (void)unused;
    while (!ended) {
        int status;
        pid_t child = fork();
        if (child == 0) _exit(one_call());
        if (child < 0) {
            lost++;
            continue;
        }
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
        if (!WIFEXITED(status) || WEXITSTATUS(status) >= OUTCOMES) {
            lost++;
            continue;
        }
        outcomes[WEXITSTATUS(status)]++;
        children++;
    }
    return NULL;
}

static long since(atomic_long *now, long *before) {
    long value = *now, more = value - *before;
    *before = value;
    return more;
}

int main(int argc, char **argv) {
    static long told_calls[THREADS], told[OUTCOMES], told_children, told_lost;
    static pthread_t ids[THREADS + 1];
    long threads = argc == 3 ? atol(argv[1]) : 0;
    int calling;
    char byte;
    if (threads < 1 || threads > THREADS) {
        fprintf(stderr, "usage: see the head of storm.c\n");
        return 2;
    }
    call = argv[2];
    calling = strcmp(call, "spin") != 0;
    /* Nothing of it is on a disk, so that to sync it costs nothing. */
    file = memfd_create("storm", 0);
    if (file < 0) return 2;
    for (long i = 0; i < threads; i++) pthread_create(&ids[i], NULL, calling ? caller : computer, (void *)i);
    if (calling) pthread_create(&ids[threads], NULL, parent, NULL);
    printf("ready %d -\n", (int)getpid());
    fflush(stdout);
    for (ssize_t got; (got = read(0, &byte, 1)) == 1 || (got < 0 && errno == EINTR);) {
        long all = 0, least = -1;
        if (got < 0 || byte != '\n') continue;
        for (long i = 0; i < threads; i++) {
            long more = since(&calls[i], &told_calls[i]);
            all += more;
            if (least < 0 || more < least) least = more;
        }
        printf("lap calls=%ld least=%ld", all, least);
        printf(" failed=%ld", since(&outcomes[FAILED], &told[FAILED]));
        printf(" enosys=%ld", since(&outcomes[LACKING], &told[LACKING]));
        printf(" other=%ld", since(&outcomes[OTHER], &told[OTHER]));
        printf(" children=%ld", since(&children, &told_children));
        printf(" lost=%ld\n", since(&lost, &told_lost));
        fflush(stdout);
    }
    ended = 1;
    for (long i = 0; i < threads + calling; i++) pthread_join(ids[i], NULL);
    printf("whole\n");
    return 0;
}
