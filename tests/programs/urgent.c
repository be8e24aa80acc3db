/* Calls and calls while signals of its own come, and says whether any was lost or invented, and what the calls gave.
 *
 *   urgent N            on a line from standard input its first thread calls getppid N times, while another sends it
 *                       SIGURG, and the process SIGWINCH, each once the one before has come
 *   urgent N timer      the same under a timer of 200 Hz instead
 *
 *   who=self calls=N errors=N codes=N sent=N got=N ticks=N
 *
 * errors: calls that did not give the parent's number, which is what the first one gives; codes: those that gave a number of the kernel's own, 512 to 531.
 * It ends with standard input. Built for both ABIs. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static volatile int urgent, winched, ticks, ended;
static pid_t self;

static void on_signal(int number) {
    if (number == SIGURG) __atomic_add_fetch(&urgent, 1, __ATOMIC_SEQ_CST);
    else if (number == SIGWINCH) __atomic_add_fetch(&winched, 1, __ATOMIC_SEQ_CST);
    else __atomic_add_fetch(&ticks, 1, __ATOMIC_SEQ_CST);
}

static int sent;

/* None is sent before the one before it has come: signals below 32 do not queue. */
static void *send(void *nothing) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    int urged = 0, winches = 0;
    while (!ended) {
        if (urgent >= urged) syscall(SYS_tgkill, self, self, SIGURG), urged++;
        if (winched >= winches) kill(self, SIGWINCH), winches++;
        usleep(200);
    }
    /* The last ones come, too. */
    for (int i = 0; i < 5000 && (urgent < urged || winched < winches); i++) usleep(1000);
    sent = urged + winches;
    return nothing;
}

int main(int count, char **words) {
    if (count < 2) return 2;
    long number = strtol(words[1], NULL, 10), errors = 0, codes = 0;
    int is_timed = count > 2 && !strcmp(words[2], "timer");
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGURG, &action, NULL);
    sigaction(SIGWINCH, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    self = getpid();
    long parent = 0;
    printf("ready %d none\n", (int)self);
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) == 1 && byte != '\n') {
    }
    pthread_t sender;
    if (is_timed) {
        struct itimerval timer = {{0, 5000}, {0, 5000}};
        setitimer(ITIMER_REAL, &timer, NULL);
    } else {
        pthread_create(&sender, NULL, send, NULL);
    }
    for (long i = 0; i < number; i++) {
        long result = getppid();
        if (i == 0) parent = result;
        errors += result != parent || result <= 0;
        codes += result <= -512 && result >= -531;
        for (volatile int pace = 0; pace < 1000; pace++) {
        }
    }
    ended = 1;
    if (is_timed) {
        struct itimerval none = {{0, 0}, {0, 0}};
        setitimer(ITIMER_REAL, &none, NULL);
    } else {
        pthread_join(sender, NULL);
    }
    printf("who=self calls=%ld errors=%ld codes=%ld sent=%d got=%d ticks=%d\n", number, errors, codes, sent,
           urgent + winched, ticks);
    fflush(stdout);
    while (read(0, &byte, 1) == 1) {
    }
    return 0;
}
