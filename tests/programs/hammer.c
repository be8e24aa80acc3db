/* A hammer of map system calls: on every processor a thread writes and reads a hash map and an array
 * map, by bpf(2), until standard input ends. While such a call works on a map the kernel leaves out
 * the programs of probes on the same processor, so that this makes it leave runs out.
 *
 * Prints "hammering" once all threads run, and "calls=N" at the end. */
#define _GNU_SOURCE
#include <linux/bpf.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Large, so that a call spends its time at the map and not on its way there. */
enum { ENTRIES = 512, VALUE = 4096 };

static int maps[2];
static atomic_long calls;
static atomic_int running, ended;

static long bpf(int command, union bpf_attr *attr) {
    return syscall(SYS_bpf, command, attr, sizeof *attr);
}

static int create(enum bpf_map_type type) {
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.map_type = type;
    attr.key_size = sizeof(uint32_t);
    attr.value_size = VALUE;
    attr.max_entries = ENTRIES;
    int map = (int)bpf(BPF_MAP_CREATE, &attr);
    if (map < 0) {
        perror("hammer: BPF_MAP_CREATE");
        exit(2);
    }
    return map;
}

static void *hammer(void *argument) {
    long cpu = (long)argument;
    cpu_set_t set;
    char value[VALUE] = {0};
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set)) {
        perror("hammer: sched_setaffinity");
        exit(2);
    }
    running++;
    for (uint32_t i = 0; !ended; i++) {
        uint32_t key = i % ENTRIES;
        union bpf_attr attr;
        memset(&attr, 0, sizeof attr);
        attr.map_fd = maps[i & 1];
        attr.key = (uintptr_t)&key;
        attr.value = (uintptr_t)value;
        attr.flags = BPF_ANY;
        if (bpf(BPF_MAP_UPDATE_ELEM, &attr) || bpf(BPF_MAP_LOOKUP_ELEM, &attr)) {
            perror("hammer: map");
            exit(2);
        }
        calls += 2;
    }
    return NULL;
}

int main(void) {
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_t *threads = calloc(cpus, sizeof *threads);
    char byte;
    maps[0] = create(BPF_MAP_TYPE_HASH);
    maps[1] = create(BPF_MAP_TYPE_ARRAY);
    for (long cpu = 0; cpu < cpus; cpu++) pthread_create(&threads[cpu], NULL, hammer, (void *)cpu);
    while (running < cpus) usleep(1000);
    printf("hammering\n");
    fflush(stdout);
    while (read(0, &byte, 1) == 1) {
    }
    ended = 1;
    for (long cpu = 0; cpu < cpus; cpu++) pthread_join(threads[cpu], NULL);
    printf("calls=%ld\n", calls);
    return 0;
}
