/* Works while a timer of 5 ms interrupts it, and says whether anything came out wrong: bytes go through
 * a pipe and back, and a call that rules name is made between.
 *
 *   ticker restart|interrupt N   with SA_RESTART, or without; N rounds, on a line from standard input
 *
 * It prints how often the call was cut short, which it makes again then, apart from other errors. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t ticks;
static long interrupted;

static void on_tick(int number) {
    (void)number;
    ticks++;
}

/* read or write, whole. */
static int whole(int write_it, int fd, void *at, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t moved = write_it ? write(fd, (char *)at + done, size - done)
                                 : read(fd, (char *)at + done, size - done);
        if (moved < 0 && errno == EINTR) interrupted++;
        else if (moved <= 0) return 0;
        else done += moved;
    }
    return 1;
}

int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = on_tick};
    struct itimerval every = {{0, 5000}, {0, 5000}}, never = {{0, 0}, {0, 0}};
    int ends[2];
    long wrong = 0, errors = 0, cut = 0;
    char byte;
    if (argc != 3) {
        fprintf(stderr, "usage: see the head of ticker.c\n");
        return 2;
    }
    if (!strcmp(argv[1], "restart")) action.sa_flags = SA_RESTART;
    if (pipe(ends)) return 2;
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    while (read(0, &byte, 1) == 1 && byte != '\n') {
    }
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    for (long i = 0; i < atol(argv[2]); i++) {
        struct timespec nap = {0, 20000};
        long back = -1;
        long result;
        while ((result = syscall(SYS_getppid)) < 0 && errno == EINTR) cut++;
        if (result < 0) errors++;
        if (!whole(1, ends[1], &i, sizeof i) || !whole(0, ends[0], &back, sizeof back)) return 3;
        if (back != i) wrong++;
        while (nanosleep(&nap, &nap) && errno == EINTR) {
        }
    }
    setitimer(ITIMER_REAL, &never, NULL);
    printf("done wrong=%ld errors=%ld ticked=%d restarted=%d cut=%ld\n", wrong, errors, ticks > 0,
           action.sa_flags == 0 || interrupted == 0, cut);
    return 0;
}
