/* What befalls a thread while its call is held.
 *
 *   befallen jump N           on a line from standard input it calls getppid N times, from a place to which its handler of
 *                             SIGUSR1 jumps, and says
 *
 *                                 who=self calls=N errors=N jumps=N
 *
 *                             calls: those that came back. It ends with standard input.
 *   befallen handle N         the same, where the handler makes a call of its own and returns; jumps: how often it ran
 *   befallen count 0          the same without a handler, until the next line
 *   befallen leak N           on a line it opens a file, and accepts a connection, N times each, closes what it got, and says
 *
 *                                 who=self calls=N errors=N jumps=N
 *
 *                             jumps: descriptors that it has more than before
 *   befallen exec WHO P ...   on a line one thread calls getppid, and on the next line another executes the program P; WHO
 *                             says which of the two is the first: caller or executer */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static sigjmp_buf place;
static char **program;

static void wait_line(void) {
    char byte;
    while (read(0, &byte, 1) == 1 && byte != '\n') {
    }
}

static volatile long jumps, returns, is_over;

static void *await_end(void *nothing) {
    wait_line();
    is_over = 1;
    return nothing;
}

static void jump(int number) {
    /* A call like the one that it came before. */
    syscall(SYS_getpid);
    if (!returns) siglongjmp(place, number);
    jumps++;
}

static void *call(void *nothing) {
    for (;;) {
        syscall(SYS_getppid);
        usleep(1000);
    }
    return nothing;
}

static void *execute(void *nothing) {
    wait_line();
    execv(program[0], program);
    perror(program[0]);
    exit(1);
    return nothing;
}

static int descriptors(void) {
    int open = 0;
    for (int fd = 0; fd < 1024; fd++) open += fcntl(fd, F_GETFD) >= 0;
    return open;
}

static void leak(long number) {
    /* A name that the kernel gives (unix(7), autobind). */
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t length = sizeof name.sun_family;
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(listener, (struct sockaddr *)&name, length);
    listen(listener, 8);
    length = sizeof name;
    getsockname(listener, (struct sockaddr *)&name, &length);
    long calls = 0, errors = 0;
    int before = descriptors();
    for (long i = 0; i < number; i++) {
        int file = open("/dev/null", O_RDONLY);
        int caller = socket(AF_UNIX, SOCK_STREAM, 0);
        connect(caller, (struct sockaddr *)&name, length);
        int called = accept(listener, NULL, NULL);
        calls += 2;
        errors += (file < 0) + (called < 0);
        /* It is there still, and is accepted now. */
        if (called < 0) called = accept(listener, NULL, NULL), calls++;
        if (file >= 0) close(file);
        if (called >= 0) close(called);
        close(caller);
    }
    printf("who=self calls=%ld errors=%ld jumps=%d\n", calls, errors, descriptors() - before);
    fflush(stdout);
}

int main(int count, char **words) {
    if (count < 3) return 2;
    printf("ready %d none\n", (int)getpid());
    fflush(stdout);
    wait_line();
    if (!strcmp(words[1], "exec")) {
        int calls_first = !strcmp(words[2], "caller");
        pthread_t other;
        program = words + 3;
        pthread_create(&other, NULL, calls_first ? execute : call, NULL);
        (calls_first ? call : execute)(NULL);
    }
    if (!strcmp(words[1], "leak")) {
        leak(atol(words[2]));
        char byte;
        while (read(0, &byte, 1) == 1) {
        }
        return 0;
    }
    volatile long calls = 0, errors = 0, made = 0;
    returns = !strcmp(words[1], "handle");
    int counts = !strcmp(words[1], "count");
    pthread_t other;
    if (counts) pthread_create(&other, NULL, await_end, NULL);
    long number = atol(words[2]), parent = getppid();
    struct sigaction action = {.sa_handler = jump};
    sigaction(SIGUSR1, &action, NULL);
    while (counts ? !is_over : made < number) {
        if (sigsetjmp(place, 1)) {
            jumps++;
            continue;
        }
        made++;
        errors += syscall(SYS_getppid) != parent;
        calls++;
    }
    printf("who=self calls=%ld errors=%ld jumps=%ld\n", calls, errors, jumps);
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) == 1) {
    }
    return 0;
}
