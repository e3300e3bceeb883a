/* t.h: unit tests in one header. A test program is a row of cases and T_MAIN:
 *
 *     #include "t.h"
 *     T_CASE(adds) { T_EQ(1 + 1, 2); }
 *     T_MAIN
 *
 * Each case prints one TAP line (ok, not ok, or ok with "# skip why"). A failed check prints file,
 * line and both values and lets the case go on; T_NEED leaves the case. An argument of the program
 * filters the cases by substring. Exit code 1 when a case failed. tests/run sums the programs. */
#ifndef MOEC_T_H
#define MOEC_T_H

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct t_case { const char *name; void (*run)(void); } t_case;
static t_case t_cases[256];
static int t_count, t_bad;      /* cases known; failed checks of the running case */
static char t_skipped[256];     /* why the running case was skipped, "" when it was not */

#define T_CASE(name)                                                             \
    static void name(void);                                                      \
    __attribute__((constructor)) static void t_add_##name(void) {                \
        t_cases[t_count++] = (t_case){#name, name};                              \
    }                                                                            \
    static void name(void)

#define T_FAIL(...)                                                              \
    (t_bad++, printf("# %s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__), putchar('\n'))
#define T_OK(condition) ((condition) ? (void)0 : (void)T_FAIL("false: %s", #condition))
#define T_NEED(condition) do { if (!(condition)) { T_FAIL("needed: %s", #condition); return; } } while (0)
#define T_SKIP(...) do { snprintf(t_skipped, sizeof t_skipped, __VA_ARGS__); return; } while (0)
#define T_EQ(got, want)                                                          \
    do {                                                                         \
        int64_t g_ = (int64_t)(got), w_ = (int64_t)(want);                       \
        if (g_ != w_) T_FAIL("%s is %" PRId64 ", expected %" PRId64, #got, g_, w_); \
    } while (0)
#define T_STR(got, want)                                                         \
    do {                                                                         \
        const char *g_ = (got), *w_ = (want);                                    \
        if (strcmp(g_, w_)) T_FAIL("%s is\n%s\n# expected\n%s", #got, g_, w_);   \
    } while (0)
#define T_HAS(text, part)                                                        \
    do {                                                                         \
        const char *g_ = (text), *w_ = (part);                                   \
        if (!strstr(g_, w_)) T_FAIL("\"%s\" not found in\n%s", w_, g_);          \
    } while (0)
#define T_NEAR(got, want, bound)                                                 \
    do {                                                                         \
        double g_ = (got), w_ = (want), b_ = (bound);                            \
        if (!(g_ - w_ <= b_ && w_ - g_ <= b_))                                   \
            T_FAIL("%s is %.17g, expected %.17g within %g", #got, g_, w_, b_);   \
    } while (0)

static int t_run(int argc, char **argv) {
    int failed = 0, ran = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < t_count; i++) {
        if (argc > 1 && !strstr(t_cases[i].name, argv[1])) continue;
        t_bad = 0;
        t_skipped[0] = 0;
        t_cases[i].run();
        failed += t_bad != 0;
        printf("%s %d %s%s%s\n", t_bad ? "not ok" : "ok", ++ran, t_cases[i].name,
               *t_skipped ? " # skip " : "", t_skipped);
    }
    printf("1..%d\n", ran);
    return failed != 0;
}

#define T_MAIN int main(int argc, char **argv) { return t_run(argc, argv); }

#endif
