/* A store of one value, replaced as one should: written to a file beside it, synced, renamed over it.
 *
 *   store DIRECTORY VALUE */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void must(int good, const char *what) {
    if (good) return;
    perror(what);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    must(!chdir(argv[1]), argv[1]);
    int file = open("value.new", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    must(file >= 0, "value.new");
    size_t length = strlen(argv[2]);
    must(write(file, argv[2], length) == (ssize_t)length, "write");
    must(!fsync(file), "fsync");
    must(!close(file), "close");
    must(!rename("value.new", "value"), "rename");
    return 0;
}
