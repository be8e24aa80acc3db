/* Adds to a balance in a file, and takes its lock too late: behind the read on which the new balance rests.
 *
 *   account FILE AMOUNT */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static void must(int good, const char *what) {
    if (good) return;
    perror(what);
    exit(1);
}

int main(int argc, char **argv) {
    char text[32] = "";
    if (argc != 3) return 2;
    int file = open(argv[1], O_RDWR);
    must(file >= 0, argv[1]);
    must(pread(file, text, sizeof text - 1, 0) > 0, "pread");
    must(!flock(file, LOCK_EX), "flock");
    int length = snprintf(text, sizeof text, "%ld\n", atol(text) + atol(argv[2]));
    must(pwrite(file, text, length, 0) == length, "pwrite");
    must(!close(file), "close");
    return 0;
}
