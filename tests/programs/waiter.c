/* Waits in every way that a stop of the thread could cut short, with a thread for each, again and
 * again until standard input ends. Then it says of each way how often it waited, how often a wait
 * ended with EINTR, ended before its time, or took twice its time. On a line that begins with `w` it
 * sends each of its threads SIGWINCH, which does nothing; on `u` SIGUSR1, which has a handler and so ends
 * a wait.
 *
 *   waiter MILLISECONDS */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long span_ms;
static volatile int ended;

static long long now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

static struct timespec span(void) {
    struct timespec time = {span_ms / 1000, span_ms % 1000 * 1000000};
    return time;
}

static void must(int good, const char *what) {
    if (!good) {
        perror(what);
        exit(2);
    }
}

/* Each waits once, on what nobody ever brings; -1 with errno where it ended otherwise. */

static int wait_epoll(void) {
    static _Thread_local int epoll = -1;
    struct epoll_event event;
    if (epoll < 0) must((epoll = epoll_create1(0)) >= 0, "epoll_create1");
    return epoll_wait(epoll, &event, 1, span_ms);
}

static int wait_epoll_ns(void) {
    static _Thread_local int epoll = -1;
    struct epoll_event event;
    /* The kernel's, of 64 bits by either ABI. */
    int64_t time[2] = {span().tv_sec, span().tv_nsec};
    if (epoll < 0) must((epoll = epoll_create1(0)) >= 0, "epoll_create1");
    return syscall(441 /* epoll_pwait2 */, epoll, &event, 1, time, NULL, 0);
}

static int wait_nanosleep(void) {
    struct timespec time = span();
    return nanosleep(&time, NULL);
}

static int wait_poll(void) { return poll(NULL, 0, span_ms); }

static int wait_select(void) {
    struct timeval time = {span_ms / 1000, span_ms % 1000 * 1000};
    return select(0, NULL, NULL, NULL, &time);
}

static int wait_futex(void) {
    uint32_t word = 0;
    struct timespec time = span();
    int result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &time, NULL, 0);
    return result < 0 && errno == ETIMEDOUT ? 0 : result;
}

static int wait_semaphore(void) {
    static _Thread_local int set = -1;
    struct sembuf down = {0, -1, 0};
    struct timespec time = span();
    if (set < 0) {
        must((set = semget(IPC_PRIVATE, 1, 0600)) >= 0, "semget");
    }
    int result = semtimedop(set, &down, 1, &time);
    if (ended) semctl(set, 0, IPC_RMID);
    return result < 0 && errno == EAGAIN ? 0 : result;
}

static int wait_signal(void) {
    sigset_t set;
    struct timespec time = span();
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    int result = sigtimedwait(&set, NULL, &time);
    return result < 0 && errno == EAGAIN ? 0 : result;
}

static int wait_accept(void) {
    static _Thread_local int socket_fd = -1;
    if (socket_fd < 0) {
        struct timeval time = {span_ms / 1000, span_ms % 1000 * 1000};
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        must((socket_fd = socket(AF_INET, SOCK_STREAM, 0)) >= 0, "socket");
        must(!bind(socket_fd, (struct sockaddr *)&address, sizeof address), "bind");
        must(!listen(socket_fd, 1), "listen");
        must(!setsockopt(socket_fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time), "setsockopt");
    }
    int result = accept(socket_fd, NULL, NULL);
    return result < 0 && errno == EAGAIN ? 0 : result;
}

static int wait_receive(void) {
    static _Thread_local int pair[2] = {-1, -1};
    char byte;
    if (pair[0] < 0) {
        struct timeval time = {span_ms / 1000, span_ms % 1000 * 1000};
        must(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
        must(!setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time), "setsockopt");
    }
    int result = recv(pair[0], &byte, 1, 0);
    return result < 0 && errno == EAGAIN ? 0 : result;
}

static int queue = -1;

/* Waits for ever, so that only EINTR could end it; the end takes the queue away. */
static int wait_message(void) {
    struct { long type; char text[8]; } message;
    int result = msgrcv(queue, &message, sizeof message.text, 0, 0);
    return result < 0 && (errno == EIDRM || errno == EINVAL) ? 1 : result;
}

static const struct {
    const char *name;
    int (*wait)(void);
} ways[] = {
    {"epoll_wait", wait_epoll},   {"epoll_pwait2", wait_epoll_ns}, {"nanosleep", wait_nanosleep},
    {"poll", wait_poll},          {"select", wait_select},         {"futex", wait_futex},
    {"semtimedop", wait_semaphore}, {"sigtimedwait", wait_signal}, {"accept", wait_accept},
    {"recv", wait_receive},       {"msgrcv", wait_message},
};
enum { WAYS = sizeof ways / sizeof *ways };

struct told {
    int way;
    long waits, interrupted, early, late, other;
};

static void *thread(void *argument) {
    struct told *told = argument;
    while (!ended) {
        long long before = now_us();
        int result = ways[told->way].wait();
        int why = errno;
        long long took = now_us() - before;
        if (result == 1) break;
        told->waits++;
        if (result < 0 && why == EINTR) told->interrupted++;
        else if (result < 0) told->other++;
        else if (took < span_ms * 1000 - 1000) told->early++;
        else if (took > span_ms * 1900) told->late++;
    }
    return NULL;
}

static void on_signal(int number) { (void)number; }

int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = on_signal};
    pthread_t ids[WAYS];
    struct told told[WAYS];
    sigset_t set;
    char byte;
    if (argc != 2) {
        fprintf(stderr, "usage: see the head of waiter.c\n");
        return 2;
    }
    span_ms = atol(argv[1]);
    sigaction(SIGUSR1, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    must((queue = msgget(IPC_PRIVATE, 0600)) >= 0, "msgget");
    memset(told, 0, sizeof told);
    for (int i = 0; i < WAYS; i++) {
        told[i].way = i;
        pthread_create(&ids[i], NULL, thread, &told[i]);
    }
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    for (ssize_t got; (got = read(0, &byte, 1)) == 1 || (got < 0 && errno == EINTR);) {
        int number = got < 0 ? 0 : byte == 'w' ? SIGWINCH : byte == 'u' ? SIGUSR1 : 0;
        for (int i = 0; number && i < WAYS; i++) pthread_kill(ids[i], number);
    }
    ended = 1;
    msgctl(queue, IPC_RMID, NULL);
    for (int i = 0; i < WAYS; i++) {
        pthread_join(ids[i], NULL);
        printf("%s waits=%ld interrupted=%ld early=%ld late=%ld other=%ld\n", ways[i].name,
               told[i].waits, told[i].interrupted, told[i].early, told[i].late, told[i].other);
    }
    return 0;
}
