/* Reaches files by many ways, and says of each call what it gave.
 *
 *   finder DIRECTORY WAY...   in that directory, on a line from standard input, one call for each WAY, in their order;
 *                             then it waits for the end of standard input
 *
 * A WAY is words with colons: one of
 *
 *   fsync:NAME          of a descriptor of that file
 *   dup:NAME            of a duplicate of it
 *   proc:NAME           of a descriptor of /proc/self/fd/N, where N is one of the file's
 *   deleted:NAME        of a descriptor of a file that it makes, and whose name is gone
 *   moved:NAME:OTHER    of a descriptor of a file that it makes, and renames
 *   pipe, socket, memfd of one of those
 *   open:NAME           openat(2) from the current directory
 *   openat:DIR:NAME     from a descriptor of that directory
 *   create:NAME         the same with O_CREAT | O_EXCL
 *   stat:NAME lstat:NAME empty:NAME   fstatat(2), the last with AT_EMPTY_PATH on a descriptor
 *   mkdir:NAME unlink:NAME rename:NAME:OTHER link:NAME:OTHER symlink:TEXT:NAME truncate:NAME
 *   null                openat(2) of no name at all
 *   far                 openat(2) of a name that stands across the end of a page, behind which there is none
 * or a step that makes no such call: chroot:DIR, bind:DIR:DIR (in a mount namespace of its own), have:NAME (a directory),
 * lose:NAME (a directory), swap:NAME:OTHER (renames). Whatever a call has made is undone. For each call a line
 *
 *   way=WAY errno=ERRNO
 *
 * What prepares calls makes others: open unlinkat renameat mkdirat. Built for both ABIs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void need(int works, const char *what) {
    if (works) return;
    perror(what);
    exit(2);
}

static int opened(const char *name, int flags) {
    int fd = (int)syscall(SYS_open, name, flags, 0600);
    need(fd >= 0, name);
    return fd;
}

/* The error of fsync on a descriptor, which is closed. */
static int synced(int fd) {
    int result = fsync(fd) ? errno : 0;
    close(fd);
    return result;
}

static int closed(long fd) {
    if (fd < 0) return errno;
    close((int)fd);
    return 0;
}

static int done(long result) { return result < 0 ? errno : 0; }

static const char *far_name(void) {
    static const char name[] = "wal/a";
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(pages != MAP_FAILED, "mmap");
    munmap(pages + 4096, 4096);
    return memcpy(pages + 4096 - sizeof name, name, sizeof name);
}

#ifdef __x86_64__
#define FSTATAT SYS_newfstatat
#else
#define FSTATAT SYS_fstatat64
#endif

static int is(const char *word, const char *other) { return !strcmp(word, other); }

/* -1 for a step that makes no call. */
static int went(const char *how, const char *name, const char *other) {
    char link[64];
    struct stat info;
    int fds[2], result;
    if (is(how, "fsync")) return synced(opened(name, O_RDONLY));
    if (is(how, "dup")) {
        int fd = opened(name, O_RDONLY), twin = dup(fd);
        close(fd);
        return synced(twin);
    }
    if (is(how, "proc")) {
        int fd = opened(name, O_RDONLY);
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        int result = closed(syscall(SYS_openat, AT_FDCWD, link, O_RDONLY));
        close(fd);
        return result;
    }
    if (is(how, "deleted")) {
        int fd = opened(name, O_CREAT | O_RDWR);
        unlinkat(AT_FDCWD, name, 0);
        return synced(fd);
    }
    if (is(how, "moved")) {
        int fd = opened(name, O_CREAT | O_RDWR);
        renameat(AT_FDCWD, name, AT_FDCWD, other);
        result = synced(fd);
        unlinkat(AT_FDCWD, other, 0);
        return result;
    }
    if (is(how, "pipe")) {
        need(!pipe(fds), "pipe");
        close(fds[0]);
        return synced(fds[1]);
    }
    if (is(how, "socket")) return synced(socket(AF_UNIX, SOCK_STREAM, 0));
    if (is(how, "memfd")) return synced(memfd_create("wal", 0));
    if (is(how, "open")) return closed(syscall(SYS_openat, AT_FDCWD, name, O_RDONLY));
    if (is(how, "openat")) {
        int fd = opened(name, O_RDONLY | O_DIRECTORY);
        result = closed(syscall(SYS_openat, fd, other, O_RDONLY));
        close(fd);
        return result;
    }
    if (is(how, "create")) {
        result = closed(syscall(SYS_openat, AT_FDCWD, name, O_CREAT | O_EXCL | O_WRONLY, 0600));
        if (!result) unlinkat(AT_FDCWD, name, 0);
        return result;
    }
    if (is(how, "null")) return closed(syscall(SYS_openat, AT_FDCWD, NULL, O_RDONLY));
    if (is(how, "far")) return closed(syscall(SYS_openat, AT_FDCWD, far_name(), O_RDONLY));
    if (is(how, "stat")) return done(syscall(FSTATAT, AT_FDCWD, name, &info, 0));
    if (is(how, "lstat")) return done(syscall(FSTATAT, AT_FDCWD, name, &info, AT_SYMLINK_NOFOLLOW));
    if (is(how, "empty")) {
        int fd = opened(name, O_RDONLY);
        result = done(syscall(FSTATAT, fd, "", &info, AT_EMPTY_PATH));
        close(fd);
        return result;
    }
    if (is(how, "truncate")) return done(syscall(SYS_truncate, name, 0L, 0L));
    if (is(how, "mkdir")) {
        result = done(syscall(SYS_mkdir, name, 0700));
        if (!result) unlinkat(AT_FDCWD, name, AT_REMOVEDIR);
        return result;
    }
    if (is(how, "unlink")) {
        result = done(syscall(SYS_unlink, name));
        if (!result) close(opened(name, O_CREAT | O_WRONLY));
        return result;
    }
    if (is(how, "rename")) {
        result = done(syscall(SYS_rename, name, other));
        if (!result) renameat(AT_FDCWD, other, AT_FDCWD, name);
        return result;
    }
    if (is(how, "link") || is(how, "symlink")) {
        result = done(syscall(is(how, "link") ? SYS_link : SYS_symlink, name, other));
        if (!result) unlinkat(AT_FDCWD, other, 0);
        return result;
    }
    if (is(how, "chroot")) {
        need(!chroot(name) && !chdir("/"), how);
    } else if (is(how, "bind")) {
        need(!unshare(CLONE_NEWNS), "unshare");
        need(!mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "a private /");
        need(!mount(name, other, NULL, MS_BIND, NULL), how);
    } else if (is(how, "have")) {
        need(!mkdirat(AT_FDCWD, name, 0700), how);
    } else if (is(how, "lose")) {
        need(!unlinkat(AT_FDCWD, name, AT_REMOVEDIR), how);
    } else if (is(how, "swap")) {
        need(!renameat(AT_FDCWD, name, AT_FDCWD, other), how);
    } else {
        fprintf(stderr, "finder: %s\n", how);
        exit(2);
    }
    return -1;
}

int main(int argc, char **argv) {
    char line[64];
    need(argc > 2, "finder DIRECTORY WAY...");
    need(!chdir(argv[1]), argv[1]);
    printf("ready %d -\n", (int)getpid());
    fflush(stdout);
    need(fgets(line, sizeof line, stdin) != NULL, "a line");
    for (int i = 2; i < argc; i++) {
        char *way = strdup(argv[i]), *rest = way;
        const char *how = strsep(&rest, ":"), *name = strsep(&rest, ":"), *other = strsep(&rest, ":");
        int result = went(how, name ? name : "", other ? other : "");
        if (result >= 0) printf("way=%s errno=%d\n", argv[i], result);
        free(way);
    }
    puts("who=self");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) continue;
    return 0;
}
