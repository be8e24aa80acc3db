/* A self-checking mover of data: says of each of its calls what it gave, what arrived, and whether all that the call
 * must leave alone is as it was.
 *
 *   mover WHERE CALLS LENGTH N   on a line from standard input N calls of each kind that ask for LENGTH bytes each; then
 *                                it waits for the end of standard input
 *
 * WHERE is one of file, direct (a file, without the page cache), pipe, stream and datagram (sockets), CALLS some of write
 * pwrite64 writev pwritev pwritev2 sendto sendmsg and read pread64 readv preadv preadv2 recvfrom recvmsg, with commas. Of a
 * call with several parts there are four, one of them empty. For each call a line
 *
 *   call=CALL result=RESULT registers=kept memory=kept data=HEX
 *
 * where the data is what has come to the other side or to the file, or into the buffer, however long the call says that
 * it is. The calls are on descriptor 77; what else the program does is on others. Built for both ABIs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define OWN 77
#define OTHER 78
#define SPARE 79
#define ENDS 80
#define PARTS 4
#define FILLER 0xee

/* A call by its instruction, and what its argument registers hold afterwards. */
#ifdef __x86_64__
static long raw(long nr, const long args[6], long after[6]) {
    long rdi = args[0], rsi = args[1], rdx = args[2];
    register long r10 __asm__("r10") = args[3];
    register long r8 __asm__("r8") = args[4];
    register long r9 __asm__("r9") = args[5];
    __asm__ volatile("syscall"
                     : "+a"(nr), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r10), "+r"(r8), "+r"(r9)
                     :
                     : "rcx", "r11", "memory");
    long found[6] = {rdi, rsi, rdx, r10, r8, r9};
    memcpy(after, found, sizeof found);
    return nr;
}
#else
long raw(long nr, const long args[6], long after[6]);
__asm__(".text\n.globl raw\nraw:\n"
        "push %ebp\n push %ebx\n push %esi\n push %edi\n"
        "mov 20(%esp), %eax\n mov 24(%esp), %edi\n"
        "mov 0(%edi), %ebx\n mov 4(%edi), %ecx\n mov 8(%edi), %edx\n mov 12(%edi), %esi\n"
        "mov 20(%edi), %ebp\n mov 16(%edi), %edi\n"
        "int $0x80\n"
        "push %edi\n mov 32(%esp), %edi\n"
        "mov %ebx, 0(%edi)\n mov %ecx, 4(%edi)\n mov %edx, 8(%edi)\n mov %esi, 12(%edi)\n"
        "mov %ebp, 20(%edi)\n pop %ebx\n mov %ebx, 16(%edi)\n"
        "pop %edi\n pop %esi\n pop %ebx\n pop %ebp\n ret\n");
#endif

static const char *where, *call;
static size_t length;
static const int own = OWN, other = OTHER;
static unsigned char *buffer;

static void fail(const char *what) {
    fprintf(stderr, "mover: %s: %s\n", what, strerror(errno));
    exit(2);
}

static int is(const char *word, const char *other_word) {
    return !strcmp(word, other_word);
}

static unsigned char pattern(size_t byte, long turn) {
    return (unsigned char)(byte * 7 + (size_t)turn * 13 + 1);
}

static int is_in(void) {
    return strstr(call, "read") || strstr(call, "recv");
}

static int is_file(void) {
    return is(where, "file") || is(where, "direct");
}

static char path[64];

static void take(int fd, int number) {
    if (dup2(fd, number) < 0) fail("dup2");
    close(fd);
}

static void open_both(void) {
    int ends[2];
    if (is_file()) {
        const char *directory = getenv("MOVER_DIR");
        snprintf(path, sizeof path, "%s/mover-%d-XXXXXX", directory ? directory : "/tmp", (int)getpid());
        ends[0] = mkostemp(path, is(where, "direct") ? O_DIRECT : 0);
        if (ends[0] < 0) fail(path);
        ends[1] = open(path, O_RDWR);
        if (ends[1] < 0) fail(path);
        unlink(path);
    } else if (is(where, "pipe")) {
        if (pipe(ends)) fail("pipe");
    } else {
        if (socketpair(AF_UNIX, is(where, "stream") ? SOCK_STREAM : SOCK_DGRAM, 0, ends)) fail("socketpair");
    }
    take(ends[0], ENDS);
    take(ends[1], ENDS + 1);
}

/* A pipe has a side for each direction. */
static void take_sides(void) {
    int writes = is(where, "pipe") && !is_in();
    if (dup2(ENDS + writes, OWN) < 0 || dup2(ENDS + !writes, OTHER) < 0 || dup2(OWN, SPARE) < 0) fail("dup2");
}

/* What is left on the way in. */
static void drain(int fd) {
    unsigned char some[4096];
    int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    while (read(fd, some, sizeof some) > 0) {
    }
    fcntl(fd, F_SETFL, flags);
}

static void put(long turn) {
    unsigned char *data = malloc(length);
    for (size_t i = 0; i < length; i++) data[i] = pattern(i, turn);
    if (is_file()) {
        if (pwrite(other, data, length, 0) != (ssize_t)length || fsync(other)) fail("pwrite");
        lseek(own, 0, SEEK_SET);
    } else {
        drain(SPARE);
        if (write(other, data, length) != (ssize_t)length) fail("write to the other side");
    }
    free(data);
}

static void print(const unsigned char *data, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) printf("%02x", data[i]);
}

static void print_arrived(void) {
    unsigned char *data = malloc(2 * length);
    ssize_t found;
    if (is_file()) {
        found = pread(other, data, 2 * length, 0);
        if (found > 0) print(data, (size_t)found);
    } else {
        int flags = fcntl(other, F_GETFL);
        fcntl(other, F_SETFL, flags | O_NONBLOCK);
        while ((found = read(other, data, 2 * length)) > 0) print(data, (size_t)found);
        fcntl(other, F_SETFL, flags);
    }
    free(data);
}

static void one_call(long turn) {
    size_t align = is(where, "direct") ? 4096 : 1, third = length / 3 / align * align;
    struct iovec parts[PARTS] = {
        {buffer, third}, {NULL, 0}, {buffer + third, third}, {buffer + 2 * third, length - 2 * third}};
    unsigned char control[64];
    struct sockaddr_storage name;
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = PARTS};
    if (is_in()) {
        put(turn);
        memset(buffer, FILLER, length);
        message.msg_name = &name;
        message.msg_namelen = sizeof name;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        message.msg_flags = 0x7777;
    } else {
        for (size_t i = 0; i < length; i++) buffer[i] = pattern(i, turn);
        if (is_file() && (ftruncate(other, 0) || lseek(own, 0, SEEK_SET))) fail("ftruncate");
    }
    struct iovec parts_before[PARTS];
    struct msghdr message_before = message;
    memcpy(parts_before, parts, sizeof parts);

    long plain[6] = {own, (long)buffer, (long)length, 0, 0, 0};
    long vector[6] = {own, (long)parts, PARTS, 0, 0, 0};
    long sent[6] = {own, (long)&message, 0, 0, 0, 0};
    long nr;
    const long *args = plain;
    if (is(call, "write")) nr = SYS_write;
    else if (is(call, "pwrite64")) nr = SYS_pwrite64;
    else if (is(call, "read")) nr = SYS_read;
    else if (is(call, "pread64")) nr = SYS_pread64;
    else if (is(call, "sendto")) nr = SYS_sendto;
    else if (is(call, "recvfrom")) nr = SYS_recvfrom;
    else if (is(call, "sendmsg")) nr = SYS_sendmsg, args = sent;
    else if (is(call, "recvmsg")) nr = SYS_recvmsg, args = sent;
    else {
        args = vector;
        if (is(call, "writev")) nr = SYS_writev;
        else if (is(call, "pwritev")) nr = SYS_pwritev;
        else if (is(call, "pwritev2")) nr = SYS_pwritev2;
        else if (is(call, "readv")) nr = SYS_readv;
        else if (is(call, "preadv")) nr = SYS_preadv;
        else if (is(call, "preadv2")) nr = SYS_preadv2;
        else errno = EINVAL, fail(call);
    }
    long after[6];
    long result = raw(nr, args, after);

    int registers = !memcmp(args, after, sizeof after);
    int memory = !memcmp(parts, parts_before, sizeof parts);
    if (is(call, "recvmsg")) {
        /* What the kernel tells of a message whose sender has no name. */
        memory &= message.msg_namelen == 0 && message.msg_controllen == 0 && message.msg_flags == 0;
        memory &= message.msg_iov == parts && message.msg_iovlen == PARTS && message.msg_control == control;
    } else {
        memory &= !memcmp(&message, &message_before, sizeof message);
    }
    if (is_in()) {
        for (size_t i = result < 0 ? 0 : (size_t)result; i < length; i++) memory &= buffer[i] == FILLER;
    } else {
        for (size_t i = 0; i < length; i++) memory &= buffer[i] == pattern(i, turn);
    }
    if (is_file() && (is(call, "write") || is(call, "writev") || is(call, "read") || is(call, "readv"))) {
        memory &= result < 0 || lseek(own, 0, SEEK_CUR) == result;
    }
    printf("call=%s result=%ld registers=%s memory=%s data=", call, result, registers ? "kept" : "changed",
           memory ? "kept" : "changed");
    if (is_in()) print(buffer, result < 0 ? 0 : (size_t)result);
    else print_arrived();
    printf("\n");
    fflush(stdout);
}

int main(int count, char **words) {
    if (count != 5) {
        fprintf(stderr, "usage: mover WHERE CALLS LENGTH N\n");
        return 2;
    }
    where = words[1];
    length = strtoul(words[3], NULL, 10);
    long number = strtol(words[4], NULL, 10);
    if (posix_memalign((void **)&buffer, 4096, length)) fail("memory");
    open_both();
    printf("ready %d %s\n", (int)getpid(), is_file() ? path : where);
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) == 1 && byte != '\n') {
    }
    for (call = strtok(words[2], ","); call; call = strtok(NULL, ",")) {
        take_sides();
        for (long turn = 0; turn < number; turn++) one_call(turn);
    }
    printf("who=self\n");
    fflush(stdout);
    while (read(0, &byte, 1) == 1) {
    }
    return 0;
}
