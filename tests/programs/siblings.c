/* One thread calls again and again, and others count beside it: whether they are held up is seen by how far they come.
 *
 *   siblings N     N threads count; on a line from standard input the first thread begins to call getppid, each time a
 *                  millisecond after the last
 *
 * On each further line it says how often it has called, and how far the others have come together:
 *
 *   calls=N counted=N
 *
 * It ends with standard input. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct counter {
    volatile unsigned long number;
    char apart[120];
};

static volatile unsigned long calls;

static void *count_up(void *counter) {
    for (;;) ((struct counter *)counter)->number++;
    return counter;
}

static void *call(void *nothing) {
    for (;;) {
        syscall(SYS_getppid);
        calls++;
        struct timespec gap = {0, 1000000};
        nanosleep(&gap, NULL);
    }
    return nothing;
}

int main(int count, char **words) {
    int number = count > 1 ? atoi(words[1]) : 1;
    struct counter *counters = calloc(number, sizeof *counters);
    pthread_t thread;
    for (int i = 0; i < number; i++) pthread_create(&thread, NULL, count_up, &counters[i]);
    printf("ready %d none\n", (int)getpid());
    fflush(stdout);
    char byte;
    int begun = 0;
    while (read(0, &byte, 1) == 1) {
        if (byte != '\n') continue;
        if (!begun++) {
            pthread_create(&thread, NULL, call, NULL);
            continue;
        }
        unsigned long all = 0;
        for (int i = 0; i < number; i++) all += counters[i].number;
        printf("calls=%lu counted=%lu\n", calls, all);
        fflush(stdout);
    }
    return 0;
}
