/* An empty program on one function, by raw bpf(2): what the kernel itself takes for a probe, which
 * no tool can go below.
 *
 *   bench_floor kprobe|kprobe.multi FUNCTION   says "attached" and stays until standard input ends
 *
 * The program is `r0 = 0; exit`. A kprobe is made by perf_event_open(2), a kprobe.multi by a link
 * of type BPF_TRACE_KPROBE_MULTI (include/uapi/linux/bpf.h). */
#define _GNU_SOURCE
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* In headers since Linux 5.18; the value is ABI. */
enum { TRACE_KPROBE_MULTI = 42 };

/* The part of union bpf_attr that BPF_LINK_CREATE reads for a kprobe.multi; old headers lack it. */
struct link_attributes {
    uint32_t program, target, attach_type, flags;
    uint32_t multi_flags, count;
    uint64_t names, addresses, cookies;
};

static int fail(const char *what) {
    perror(what);
    return 1;
}

int main(int count, char **words) {
    if (count != 3) {
        fprintf(stderr, "usage: bench_floor kprobe|kprobe.multi FUNCTION\n");
        return 2;
    }
    int multi = !strcmp(words[1], "kprobe.multi");
    struct bpf_insn empty[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K},
        {.code = BPF_JMP | BPF_EXIT},
    };
    union bpf_attr load;
    memset(&load, 0, sizeof load);
    load.prog_type = BPF_PROG_TYPE_KPROBE;
    load.insns = (uintptr_t)empty;
    load.insn_cnt = sizeof empty / sizeof *empty;
    load.license = (uintptr_t) "GPL";
    if (multi) load.expected_attach_type = TRACE_KPROBE_MULTI;
    int program = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
    if (program < 0) return fail("BPF_PROG_LOAD");

    if (multi) {
        const char *names[] = {words[2]};
        struct link_attributes link = {
            .program = program,
            .attach_type = TRACE_KPROBE_MULTI,
            .count = 1,
            .names = (uintptr_t)names,
        };
        if (syscall(SYS_bpf, BPF_LINK_CREATE, &link, sizeof link) < 0) return fail("BPF_LINK_CREATE");
    } else {
        unsigned type;
        FILE *file = fopen("/sys/bus/event_source/devices/kprobe/type", "r");
        if (!file || fscanf(file, "%u", &type) != 1) return fail("the kprobe event source");
        struct perf_event_attr event;
        memset(&event, 0, sizeof event);
        event.size = sizeof event;
        event.type = type;
        event.kprobe_func = (uintptr_t)words[2];
        int probe = syscall(SYS_perf_event_open, &event, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
        if (probe < 0) return fail("perf_event_open");
        if (ioctl(probe, PERF_EVENT_IOC_SET_BPF, program)) return fail("PERF_EVENT_IOC_SET_BPF");
        if (ioctl(probe, PERF_EVENT_IOC_ENABLE, 0)) return fail("PERF_EVENT_IOC_ENABLE");
    }
    puts("attached");
    fflush(stdout);
    while (getchar() != EOF) {
    }
    return 0;
}
