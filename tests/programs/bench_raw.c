/* The bare mechanisms of finject's backends that decide in user space: the least that a supervisor or
 * a tracer can do with a call. `cargo xtask bench backends` measures finject against them.
 *
 *   bench_raw notify CALL runs|fails COMMAND ...   a filter hands CALL to a listener; each is received
 *                                                  and answered: two calls of this process
 *   bench_raw launch CALL runs|fails COMMAND ...   a filter hands CALL to the tracer; each stops once,
 *                                                  and is waited for and let go: two calls
 *   bench_raw attach CALL runs|fails PID           traces a process that runs, whose threads stop at
 *                                                  the entry and at the exit of every call: there is no
 *                                                  filter in it, and a stop at entries alone has the
 *                                                  call skipped (PTRACE_SYSEMU). Each stop is waited
 *                                                  for and let go; at an entry the call's number is
 *                                                  read, by the shortest request that tells it: five
 *                                                  calls in all. Says "ready" once all have stopped.
 *
 * A call that `fails` does not run, and gives EIO. CALL is fsync, fdatasync, openat or getppid.
 * Nothing is decided, counted, recorded or looked after, and children are followed. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of include/uapi/linux/seccomp.h, Linux 5.19 and 6.6. */
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

enum { MOST_PIDS = 1 << 22 };

static pid_t command;

static void fail(const char *what) {
    perror(what);
    exit(125);
}

static long number_of(const char *call) {
    if (!strcmp(call, "fsync")) return SYS_fsync;
    if (!strcmp(call, "fdatasync")) return SYS_fdatasync;
    if (!strcmp(call, "openat")) return SYS_openat;
    if (!strcmp(call, "getppid")) return SYS_getppid;
    fprintf(stderr, "bench_raw: no call %s\n", call);
    exit(2);
}

/* Installs a filter that answers `number` with `action`; what seccomp(2) returned. */
static int install(long number, unsigned action, unsigned long flags) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("no_new_privs");
    int made = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (made < 0) fail("seccomp");
    return made;
}

static int status_of(int status) {
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* The command is the last to end. */
static void ended(int signal) {
    int status;
    (void)signal;
    if (waitpid(command, &status, WNOHANG) == command) _exit(status_of(status));
}

_Noreturn static void notify(long number, int fails, char **words) {
    int to_parent[2], to_child[2], made;
    char byte = 0;
    if (pipe(to_parent) != 0 || pipe(to_child) != 0) fail("pipe");
    struct sigaction action = {.sa_handler = ended};
    sigaction(SIGCHLD, &action, NULL);
    command = fork();
    if (command < 0) fail("fork");
    if (command == 0) {
        made = install(number, SECCOMP_RET_USER_NOTIF,
                       SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
        if (write(to_parent[1], &made, sizeof made) != sizeof made) fail("write");
        if (read(to_child[0], &byte, 1) != 1) fail("read");
        for (int fd = 3; fd < 16; fd++) close(fd);
        execvp(words[0], words);
        fail(words[0]);
    }
    if (read(to_parent[0], &made, sizeof made) != sizeof made) fail("no filter");
    int process = (int)syscall(SYS_pidfd_open, command, 0);
    int listener = (int)syscall(SYS_pidfd_getfd, process, made, 0);
    if (listener < 0) fail("pidfd_getfd");
    /* The receiver is woken on the caller's processor, where the kernel can: the faster way. */
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, 1UL);
    if (write(to_child[1], &byte, 1) != 1) fail("write");
    for (;;) {
        struct seccomp_notif call = {0};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) continue;
        struct seccomp_notif_resp answer = {.id = call.id};
        if (fails)
            answer.error = -EIO;
        else
            answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
}

static void skip(pid_t tid) {
    ptrace(PTRACE_POKEUSER, tid, offsetof(struct user_regs_struct, orig_rax), -1L);
    ptrace(PTRACE_POKEUSER, tid, offsetof(struct user_regs_struct, rax), (long)-EIO);
}

enum { CHILDREN = PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK };

static int launch(long number, int fails, char **words) {
    int to_child[2], status, last = 0;
    char byte = 0;
    if (pipe(to_child) != 0) fail("pipe");
    command = fork();
    if (command < 0) fail("fork");
    if (command == 0) {
        if (read(to_child[0], &byte, 1) != 1) fail("read");
        close(to_child[0]);
        close(to_child[1]);
        install(number, SECCOMP_RET_TRACE, 0);
        execvp(words[0], words);
        fail(words[0]);
    }
    if (ptrace(PTRACE_SEIZE, command, 0, CHILDREN | PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL) != 0)
        fail("PTRACE_SEIZE");
    if (write(to_child[1], &byte, 1) != 1) fail("write");
    pid_t tid;
    while ((tid = waitpid(-1, &status, __WALL)) > 0) {
        if (!WIFSTOPPED(status)) {
            if (tid == command) last = status_of(status);
            continue;
        }
        int event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP && fails) skip(tid);
        ptrace(PTRACE_CONT, tid, 0, event == 0 ? WSTOPSIG(status) : 0);
    }
    return last;
}

static unsigned char inside[MOST_PIDS];

static int attach(long number, int fails, pid_t pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *threads = opendir(path);
    if (!threads) fail(path);
    struct dirent *entry;
    int awaited = 0, status;
    while ((entry = readdir(threads))) {
        pid_t tid = atoi(entry->d_name);
        if (tid <= 0) continue;
        if (ptrace(PTRACE_SEIZE, tid, 0, CHILDREN | PTRACE_O_TRACESYSGOOD) != 0) fail("PTRACE_SEIZE");
        if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) != 0) fail("PTRACE_INTERRUPT");
        awaited++;
    }
    closedir(threads);
    pid_t tid;
    while ((tid = waitpid(-1, &status, __WALL)) > 0) {
        if (tid >= MOST_PIDS) continue;
        if (!WIFSTOPPED(status)) {
            inside[tid] = 0;
            continue;
        }
        int event = status >> 16, signal = 0;
        if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
            inside[tid] = !inside[tid];
            if (inside[tid]) {
                long called = ptrace(PTRACE_PEEKUSER, tid, offsetof(struct user_regs_struct, orig_rax), 0);
                if (called == number && fails) skip(tid);
            }
        } else if (event == PTRACE_EVENT_STOP) {
            if (awaited > 0 && --awaited == 0) {
                puts("ready");
                fflush(stdout);
            }
        } else if (event == 0) {
            signal = WSTOPSIG(status);
        }
        ptrace(PTRACE_SYSCALL, tid, 0, signal);
    }
    return 0;
}

int main(int count, char **words) {
    if (count < 5 || (strcmp(words[3], "runs") && strcmp(words[3], "fails"))) {
        fprintf(stderr, "usage: bench_raw notify|launch|attach CALL runs|fails COMMAND ...|PID\n");
        return 2;
    }
    long number = number_of(words[2]);
    int fails = !strcmp(words[3], "fails");
    if (!strcmp(words[1], "notify")) notify(number, fails, words + 4);
    if (!strcmp(words[1], "launch")) return launch(number, fails, words + 4);
    if (!strcmp(words[1], "attach")) return attach(number, fails, atoi(words[4]));
    return 2;
}
