/* Calls on sockets, and says of each call what it gave.
 *
 *   caller DIRECTORY WAY...   in that directory, on a line from standard input, one call for each WAY, in their order; then
 *                             it waits for the end of standard input
 *
 * Before, it listens at 127.0.0.1:PORT and [::1]:PORT, where PORT is what it prints as the file of its first line, at the unix
 * socket `name` and the abstract one `@name-PORT`, but not where the first WAY is bind4. A WAY is one of
 *
 *   connect4 connect6 mapped connectunix connectabstract    connect(2) there; mapped is of ::ffff:127.0.0.1
 *   send4 send6 sendunix     send(2) on a connected stream
 *   sendto4 sendto6          sendto(2) of a datagram with an address
 *   sendmsg4 sendmsg6        sendmsg(2) with one
 *   sendmsg                  on a connected stream
 *   bind4                    bind(2) to 127.0.0.1 with any port
 *   pipe file loose          send(2) on what is no socket (it fails by itself), or on one that is not connected
 *
 * For each a line
 *
 *   way=WAY errno=ERRNO
 *
 * Built for both ABIs. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static unsigned short port;

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
};

static void need(int works, const char *what) {
    if (works) return;
    perror(what);
    exit(2);
}

/* One of 4, 6, m (mapped), u (a name), a (an abstract name). */
static socklen_t fill(union address *to, char kind) {
    memset(to, 0, sizeof *to);
    if (kind == '4') {
        to->v4.sin_family = AF_INET;
        to->v4.sin_port = htons(port);
        to->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return sizeof to->v4;
    }
    if (kind == '6' || kind == 'm') {
        to->v6.sin6_family = AF_INET6;
        to->v6.sin6_port = htons(port);
        inet_pton(AF_INET6, kind == '6' ? "::1" : "::ffff:127.0.0.1", &to->v6.sin6_addr);
        return sizeof to->v6;
    }
    to->un.sun_family = AF_UNIX;
    int length = kind == 'u' ? snprintf(to->un.sun_path, sizeof to->un.sun_path, "name") + 1
                             : 1 + snprintf(to->un.sun_path + 1, sizeof to->un.sun_path - 1, "name-%u", port);
    return offsetof(struct sockaddr_un, sun_path) + length;
}

static int family_of(char kind) { return kind == '4' ? AF_INET : kind == 'u' || kind == 'a' ? AF_UNIX : AF_INET6; }

static int opened(char kind, int type) {
    int fd = socket(family_of(kind), type, 0);
    need(fd >= 0, "socket");
    return fd;
}

static int listening(char kind) {
    union address address;
    socklen_t length = fill(&address, kind);
    int fd = opened(kind, SOCK_STREAM), one = 1;
    if (kind == '6') setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    /* The 32-bit ABI has it by its own number too; a rule about bind is none about this one. */
    need(!bind(fd, &address.any, length), "bind");
    need(!listen(fd, 64), "listen");
    if (kind == '4') {
        length = sizeof address;
        getsockname(fd, &address.any, &length);
        port = ntohs(address.v4.sin_port);
    }
    return fd;
}

/* The error of a call, and its descriptor is closed. */
static int ended(int fd, long result) {
    int error = result < 0 ? errno : 0;
    close(fd);
    return error;
}

static int connected(char kind) {
    union address address;
    socklen_t length = fill(&address, kind);
    int fd = opened(kind, SOCK_STREAM);
    need(!connect(fd, &address.any, length), "connect");
    return fd;
}

static int went(const char *way) {
    union address address;
    socklen_t length;
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    char kind = !strcmp(way, "mapped") ? 'm' : strstr(way, "unix") ? 'u' : strstr(way, "abstract") ? 'a' : way[strlen(way) - 1];
    if (!strncmp(way, "connect", 7) || kind == 'm') {
        length = fill(&address, kind);
        int fd = opened(kind, SOCK_STREAM);
        return ended(fd, connect(fd, &address.any, length));
    }
    if (!strncmp(way, "sendto", 6)) {
        length = fill(&address, kind);
        int fd = opened(kind, SOCK_DGRAM);
        return ended(fd, sendto(fd, "x", 1, 0, &address.any, length));
    }
    if (!strcmp(way, "sendmsg")) {
        int fd = connected('4');
        return ended(fd, sendmsg(fd, &message, MSG_NOSIGNAL));
    }
    if (!strncmp(way, "sendmsg", 7)) {
        message.msg_namelen = fill(&address, kind);
        message.msg_name = &address;
        int fd = opened(kind, SOCK_DGRAM);
        return ended(fd, sendmsg(fd, &message, MSG_NOSIGNAL));
    }
    if (!strncmp(way, "send", 4)) {
        int fd = connected(kind);
        return ended(fd, send(fd, "x", 1, MSG_NOSIGNAL));
    }
    if (!strcmp(way, "bind4")) {
        length = fill(&address, '4');
        address.v4.sin_port = 0;
        int fd = opened('4', SOCK_STREAM);
        return ended(fd, bind(fd, &address.any, length));
    }
    if (!strcmp(way, "pipe")) {
        int fds[2];
        need(!pipe(fds), way);
        close(fds[0]);
        return ended(fds[1], send(fds[1], "x", 1, MSG_NOSIGNAL));
    }
    if (!strcmp(way, "loose")) {
        int fd = opened('4', SOCK_STREAM);
        return ended(fd, send(fd, "x", 1, MSG_NOSIGNAL));
    }
    fprintf(stderr, "caller: %s\n", way);
    exit(2);
}

int main(int argc, char **argv) {
    char line[64];
    need(argc > 2, "caller DIRECTORY WAY...");
    need(!chdir(argv[1]), argv[1]);
    if (strcmp(argv[2], "bind4")) {
        listening('4');
        listening('6');
        listening('u');
        listening('a');
    }
    printf("ready %d %u\n", (int)getpid(), port);
    fflush(stdout);
    need(fgets(line, sizeof line, stdin) != NULL, "a line");
    for (int i = 2; i < argc; i++) printf("way=%s errno=%d\n", argv[i], went(argv[i]));
    puts("who=self");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) continue;
    return 0;
}
