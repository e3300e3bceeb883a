/* What this CPU and its operating system offer, read once: cpuid says what the machine has, xgetbv
 * what the system saves on a context switch, and AMX needs a permission from Linux on top
 * (arch_prctl ARCH_REQ_XCOMP_PERM, before the threads that use it start).
 * Source: Intel SDM volume 1 chapter 13, volume 2 CPUID; Linux Documentation/arch/x86/xstate. */
#include "device.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "setting.h"

enum { HAS_AVX2 = 1, HAS_AVX512 = 2, HAS_BF16 = 4, HAS_AMX = 8 };

static int features;
static char words[128];
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t saved_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool bits(uint32_t word, const int *list, int count) {
    for (int i = 0; i < count; i++)
        if (!(word >> list[i] & 1)) return false;
    return true;
}
#define BITS(word, ...) \
    bits(word, (const int[]){__VA_ARGS__}, (int)(sizeof((const int[]){__VA_ARGS__}) / sizeof(int)))

/* Linux gives a process the 8 KiB tile state only on request. */
static bool amx_permission(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
}

static int detect(void) {
    uint32_t a, b, c, d, b7, d7, a71 = 0, unused;
    int found = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !BITS(c, 27)) return 0; /* OSXSAVE: xgetbv works */
    uint64_t state = saved_state();
    bool fma_f16c = BITS(c, 12, 29);
    if (!__get_cpuid_count(7, 0, &a, &b7, &c, &d7)) return 0;
    if (a >= 1) __get_cpuid_count(7, 1, &a71, &unused, &c, &d);
    if ((state & 0x6) == 0x6 && fma_f16c && BITS(b7, 5, 8)) found |= HAS_AVX2; /* AVX2, BMI2 */
    if (!found || (state & 0xe6) != 0xe6) return found;
    if (BITS(b7, 16, 17, 30, 31)) found |= HAS_AVX512;                         /* F DQ BW VL */
    if (found & HAS_AVX512 && BITS(a71, 5)) found |= HAS_BF16;                 /* AVX512_BF16 */
    bool tiles = BITS(d7, 22, 24) && (state & 0x60000) == 0x60000;             /* AMX-BF16, TILE */
    if (found & HAS_BF16 && tiles && amx_permission()) found |= HAS_AMX;
    return found;
}
#else
static int detect(void) { return 0; }
#endif

static void read_features(void) {
    features = detect();
    snprintf(words, sizeof words, "%s%s%s%s", features & HAS_AVX2 ? "AVX2 FMA " : "",
             features & HAS_AVX512 ? "AVX-512 " : "", features & HAS_BF16 ? "AVX512-BF16 " : "",
             features & HAS_AMX ? "AMX-BF16 " : "");
    if (!*words) strcpy(words, "no vector extension that moec uses ");
    words[strlen(words) - 1] = 0;
}

static const struct { const char *target; int needs; } rows[] = { /* best first */
    {"cpu-amx",    HAS_AMX},
    {"cpu-avx512", HAS_AVX512 | HAS_BF16},
    {"cpu-avx2",   HAS_AVX2},
    {"cpu-scalar", 0},
};

bool moec_cpu_emulates(const moec_target *target) {
    const char *wanted = moec_setting("MOEC_EMULATE_TILES");
    return target->amx && wanted && !strcmp(wanted, "1");
}

bool moec_cpu_can(const moec_target *target) {
    pthread_once(&once, read_features);
    if (moec_cpu_emulates(target)) return true;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].target, target->name))
            return (features & rows[i].needs) == rows[i].needs;
    return false;
}

const moec_target *moec_cpu_best(void) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const moec_target *target = moec_target_find(rows[i].target);
        if (target && !moec_cpu_emulates(target) && moec_cpu_can(target)) return target;
    }
    return NULL;
}

static char emulation_flags[512];
static pthread_once_t emulation_once = PTHREAD_ONCE_INIT;

static void make_emulation_flags(void) {
    const moec_target *target = moec_cpu_best();
    if (target->amx) target = moec_target_find(target->fallback);
    snprintf(emulation_flags, sizeof emulation_flags, "%s -DMOEC_EMULATE_TILES", target->flags);
}

const char *moec_cpu_flags(const moec_target *target) {
    if (!moec_cpu_emulates(target)) return target->flags;
    pthread_once(&emulation_once, make_emulation_flags);
    return emulation_flags;
}

const char *moec_cpu_features(void) {
    pthread_once(&once, read_features);
    return words;
}

/* Whole CPUs that a control group's quota allows ("max 100000" or "200000 100000"); 0: no quota. */
static int quota_cpus(void) {
    double quota = 0, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (!f) return 0;
    int got = fscanf(f, "%lf %lf", &quota, &period);
    fclose(f);
    return got == 2 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

int moec_cpu_count(void) {
    cpu_set_t set;
    int count = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (!sched_getaffinity(0, sizeof set, &set)) count = CPU_COUNT(&set);
    int quota = quota_cpus();
    if (quota > 0 && quota < count) count = quota;
    const char *wanted = getenv("OMP_NUM_THREADS");
    if (wanted && atoi(wanted) > 0) count = atoi(wanted);
    if (count > MOEC_MOST_THREADS) count = MOEC_MOST_THREADS; /* libgomp has an array of them on its stack */
    return count > 0 ? count : 1;
}
