/* A self-checking victim: makes one kind of call, again and again, and says what it saw of it.
 *
 *   victim threads T N CALL   on a line from standard input, T threads make N calls each, all
 *                             starting together; then it waits for the end of standard input
 *   victim named T N CALL     the same, each thread under the name `worker`
 *   victim loop CALL [US]     calls until standard input ends, with so many microseconds between two,
 *                             and prints a line at every change between success and failure, with
 *                             CLOCK_MONOTONIC nanoseconds
 *   victim family N CALL      a child from before the line, a child and a grandchild from after
 *                             it, and the process itself after an exec make N calls each
 *   victim kin N CALL         a grandchild from before the line, and after it one child by vfork and one
 *                             by posix_spawn, each with an exec, and a daemon, make N calls each
 *   victim filtered N CALL    on a line, N calls under a seccomp filter of its own, which kills whoever
 *                             makes a call that it does not know
 *   victim threadexec N CALL  on a line, a thread other than the first executes the program anew,
 *                             which makes N calls
 *   victim busyexec PROGRAM   a thread other than the first executes PROGRAM, while the first opens files
 *   victim strict             in strict secure-computing mode, a letter for each byte of standard
 *                             input: r where read(2) gave it, and e before it for each that failed
 *
 * CALL is one of fsync fdatasync write unlink getppid pause lseek. Built for both ABIs. lseek is called
 * with the descriptor 77 and, each thread in turn, the ten offsets from -5 on, from the end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct seen {
    long calls, errors, zeros;
    int first_errno;
};

static const char *call_name;
static char path[64];
static int file = -1;
static volatile sig_atomic_t signals;

static void on_signal(int number) {
    (void)number;
    signals++;
}

static long one_call(void) {
    if (!strcmp(call_name, "fsync")) return fsync(file);
    if (!strcmp(call_name, "fdatasync")) return fdatasync(file);
    if (!strcmp(call_name, "write")) return write(file, "x", 1);
    if (!strcmp(call_name, "unlink")) return unlink(path);
    if (!strcmp(call_name, "getppid")) return syscall(SYS_getppid);
    if (!strcmp(call_name, "pause")) return pause();
    if (!strcmp(call_name, "lseek")) {
        static __thread long turn;
        return syscall(SYS_lseek, 77, turn++ % 10 - 5, SEEK_END);
    }
    fprintf(stderr, "victim: no such call: %s\n", call_name);
    exit(2);
}

static void open_file(void) {
    /* Not by number alone: one that was killed leaves its file to whoever gets its number. */
    snprintf(path, sizeof path, "/tmp/victim-%d-XXXXXX", (int)getpid());
    file = mkstemp(path);
    if (file < 0) {
        perror(path);
        exit(2);
    }
    if (call_name && !strcmp(call_name, "lseek") && (ftruncate(file, 1000) || dup2(file, 77) < 0)) {
        perror(path);
        exit(2);
    }
}

static void work(long number, struct seen *seen) {
    memset(seen, 0, sizeof *seen);
    for (long i = 0; i < number; i++) {
        errno = 0;
        long result = one_call();
        seen->calls++;
        if (result == 0) seen->zeros++;
        if (result < 0) {
            if (!seen->errors) seen->first_errno = errno;
            seen->errors++;
        }
    }
}

static void tell(const char *who, const struct seen *seen) {
    struct stat status;
    long size = fstat(file, &status) == 0 ? (long)status.st_size : -1;
    printf("who=%s pid=%d calls=%ld errors=%ld zeros=%ld errno=%d signals=%d size=%ld exists=%d\n",
           who, (int)getpid(), seen->calls, seen->errors, seen->zeros, seen->first_errno,
           (int)signals, size, access(path, F_OK) == 0);
    fflush(stdout);
}

static void wait_line(void) {
    char byte;
    while (read(0, &byte, 1) == 1 && byte != '\n') {
    }
}

static pthread_barrier_t barrier;
static long per_thread;

static int is_named;

static void *thread(void *seen) {
    if (is_named) prctl(PR_SET_NAME, "worker");
    pthread_barrier_wait(&barrier);
    work(per_thread, seen);
    return NULL;
}

static void threads(long count, long number) {
    pthread_t *ids = calloc(count, sizeof *ids);
    struct seen *seen = calloc(count, sizeof *seen), all = {0};
    per_thread = number;
    if (count == 1) {
        /* In the first thread: a kernel without 32-bit times (CONFIG_COMPAT_32BIT_TIME) lacks the futex
         * call that 32-bit threads of glibc need. */
        work(number, &all);
        printf("thread=0 errors=%ld\n", all.errors);
        tell("self", &all);
        return;
    }
    pthread_barrier_init(&barrier, NULL, count);
    for (long i = 0; i < count; i++) pthread_create(&ids[i], NULL, thread, &seen[i]);
    for (long i = 0; i < count; i++) {
        pthread_join(ids[i], NULL);
        all.calls += seen[i].calls;
        all.errors += seen[i].errors;
        all.zeros += seen[i].zeros;
        if (seen[i].first_errno) all.first_errno = seen[i].first_errno;
        printf("thread=%ld errors=%ld\n", i, seen[i].errors);
    }
    tell("self", &all);
}

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void *until_end(void *ended) {
    wait_line();
    *(volatile int *)ended = 1;
    return NULL;
}

static void loop(long pause_us) {
    static volatile int ended;
    pthread_t reader;
    int failing = -1;
    long calls = 0;
    pthread_create(&reader, NULL, until_end, (void *)&ended);
    while (!ended) {
        int fails = one_call() < 0;
        calls++;
        if (fails != failing) {
            printf("%s %lld\n", fails ? "fails" : "works", now());
            fflush(stdout);
            failing = fails;
        }
        if (pause_us > 0) usleep(pause_us);
    }
    printf("calls=%ld\n", calls);
}

static void family(const char *self, const char *number, const char *call) {
    int start[2], before, after;
    struct seen seen;
    if (pipe(start)) exit(2);
    before = fork();
    if (before == 0) {
        char byte;
        close(start[1]);
        if (read(start[0], &byte, 1) < 0) exit(2);
        open_file();
        work(atol(number), &seen);
        tell("child-before", &seen);
        _exit(0);
    }
    printf("child-before %d\n", before);
    fflush(stdout);
    wait_line();
    close(start[1]);
    waitpid(before, NULL, 0);
    after = fork();
    if (after == 0) {
        open_file();
        work(atol(number), &seen);
        tell("child-after", &seen);
        int grandchild = fork();
        if (grandchild == 0) {
            open_file();
            work(atol(number), &seen);
            tell("grandchild", &seen);
            _exit(0);
        }
        waitpid(grandchild, NULL, 0);
        _exit(0);
    }
    waitpid(after, NULL, 0);
    execl(self, self, "now", number, call, (char *)NULL);
    perror("exec");
    exit(2);
}

/* A process's own work, up to its end. */
static void work_as(const char *who, const char *number) {
    struct seen seen;
    open_file();
    work(atol(number), &seen);
    tell(who, &seen);
    unlink(path);
    _exit(0);
}

static void kin(char *self, char *number, char *call) {
    char byte, *vforked[] = {self, "now", number, call, "vforked", NULL},
         *spawned[] = {self, "now", number, call, "spawned", NULL};
    int start[2], there[2], child;
    if (pipe(start) || pipe(there)) exit(2);
    if (fork() == 0) {
        close(start[1]);
        if (fork() == 0) {
            if (write(there[1], "t", 1) != 1 || read(start[0], &byte, 1) < 0) exit(2);
            work_as("grandchild-before", number);
        }
        wait(NULL);
        _exit(0);
    }
    if (read(there[0], &byte, 1) != 1) exit(2);
    printf("ready %d -\n", (int)getpid());
    fflush(stdout);
    wait_line();
    close(start[1]);
    wait(NULL);
    child = vfork();
    if (child == 0) {
        execv(self, vforked);
        _exit(2);
    }
    waitpid(child, NULL, 0);
    if (posix_spawn(&child, self, NULL, NULL, spawned, environ)) exit(2);
    waitpid(child, NULL, 0);
    child = fork();
    if (child == 0) {
        setsid();
        if (fork() == 0) work_as("daemon", number);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    wait_line();
}

/* Lets the calls of this program's modes and of its C library's output through, and kills for others. */
static void filter_calls(void) {
    static const int allowed[] = {SYS_read,   SYS_write,  SYS_getppid, SYS_fsync,      SYS_fdatasync,
                                  SYS_unlink, SYS_fstat,  262 /* newfstatat */, SYS_exit_group, SYS_getpid,
                                  SYS_access, SYS_faccessat, SYS_brk,  SYS_mmap, SYS_munmap, SYS_getrandom};
    enum { COUNT = sizeof allowed / sizeof *allowed };
    struct sock_filter code[2 * COUNT + 2];
    struct sock_fprog program = {2 * COUNT + 2, code};
    int at = 0;
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < COUNT; i++) {
        code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
        code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        perror("seccomp");
        exit(2);
    }
}

static char **again;

static void *exec_again(void *unused) {
    (void)unused;
    execl(again[0], again[0], "now", again[2], again[3], (char *)NULL);
    perror("exec");
    exit(2);
}

static void *exec_other(void *program) {
    struct timespec little = {0, 2000000};
    nanosleep(&little, NULL);
    execl(program, program, (char *)NULL);
    /* No open(2) of the C library's may stand between the program and its word. */
    if (write(2, "exec\n", 5) != 5) _exit(3);
    _exit(2);
}

static void strict(void) {
    char byte;
    long got;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) _exit(2);
    while ((got = syscall(SYS_read, 0, &byte, 1)) != 0) {
        if (syscall(SYS_write, 1, got < 0 ? "e" : byte == '\n' ? "r\n" : "r", byte == '\n' && got > 0 ? 2 : 1) < 0)
            break;
    }
    syscall(SYS_exit, 0);
}

int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = on_signal};
    struct seen seen;
    sigaction(SIGUSR1, &action, NULL);
    if (argc == 5 && (!strcmp(argv[1], "threads") || !strcmp(argv[1], "named"))) {
        is_named = !strcmp(argv[1], "named");
        call_name = argv[4];
        open_file();
        printf("ready %d %s\n", (int)getpid(), path);
        fflush(stdout);
        wait_line();
        threads(atol(argv[2]), atol(argv[3]));
        wait_line();
    } else if ((argc == 3 || argc == 4) && !strcmp(argv[1], "loop")) {
        call_name = argv[2];
        open_file();
        printf("ready %d %s\n", (int)getpid(), path);
        fflush(stdout);
        loop(argc == 4 ? atol(argv[3]) : 0);
    } else if (argc == 4 && !strcmp(argv[1], "family")) {
        call_name = argv[3];
        family(argv[0], argv[2], argv[3]);
    } else if (argc == 4 && !strcmp(argv[1], "filtered")) {
        call_name = argv[3];
        open_file();
        filter_calls();
        printf("ready %d %s\n", (int)getpid(), path);
        fflush(stdout);
        wait_line();
        work(atol(argv[2]), &seen);
        tell("self", &seen);
        wait_line();
    } else if (argc == 4 && !strcmp(argv[1], "threadexec")) {
        pthread_t id;
        again = argv;
        printf("ready %d %s\n", (int)getpid(), path);
        fflush(stdout);
        wait_line();
        pthread_create(&id, NULL, exec_again, NULL);
        pthread_join(id, NULL);
    } else if (argc == 3 && !strcmp(argv[1], "busyexec")) {
        pthread_t id;
        pthread_create(&id, NULL, exec_other, argv[2]);
        for (;;) close(open("/", O_RDONLY));
    } else if (argc == 2 && !strcmp(argv[1], "strict")) {
        printf("ready %d -\n", (int)getpid());
        fflush(stdout);
        strict();
    } else if (argc == 4 && !strcmp(argv[1], "now")) {
        call_name = argv[3];
        open_file();
        work(atol(argv[2]), &seen);
        tell("after-exec", &seen);
        wait_line();
    } else if (argc == 5 && !strcmp(argv[1], "now")) {
        call_name = argv[3];
        work_as(argv[4], argv[2]);
    } else if (argc == 4 && !strcmp(argv[1], "kin")) {
        call_name = argv[3];
        kin(argv[0], argv[2], argv[3]);
    } else {
        fprintf(stderr, "usage: see the head of victim.c\n");
        return 2;
    }
    unlink(path);
    return 0;
}
