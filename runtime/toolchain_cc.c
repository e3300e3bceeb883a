/* The CPU family's toolchain: a C compiler as a subprocess.
 *
 * Choice, once per process: $MOEC_CC (may hold arguments, "ccache clang-19"), else clang-19, then
 * the newest other clang, then the newest gcc. Emitted kernels include no header and call no
 * library but libm, so -nostdlib saves the linker's search. Value-changing flags such as
 * -ffast-math are never used; contraction to FMA and no errno are. $MOEC_CFLAGS is appended.
 *
 * The compiler runs inside the build directory with relative names: its output does not depend on
 * where the cache is. */
#include "toolchain.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "fs.h"
#include "subprocess.h"

enum { MAX_WORDS = 64, WORD_BYTES = 2048, LOG_BYTES = 64 * 1024, SHOWN_BYTES = 2400 };

static const char base_flags[] = "-std=gnu11 -O2 -fno-math-errno -ffp-contract=fast -fPIC -shared "
                                 "-nostdlib -Wl,--build-id=none";

typedef struct compiler {
    char command[512];  /* "clang-19", or the words of MOEC_CC */
    char version[256];  /* first line of --version */
    moec_status rc;     /* why there is none ... */
    moec_error err;     /* ... in words */
} compiler;

static compiler cc;
static pthread_mutex_t cc_lock = PTHREAD_MUTEX_INITIALIZER;

/* Splits at spaces into words that live in `store`. */
static int split(const char *text, char *store, const char **argv, int count) {
    for (text += strspn(text, " "); *text && count < MAX_WORDS - 1; text += strspn(text, " ")) {
        size_t n = strcspn(text, " ");
        memcpy(store, text, n);
        store[n] = 0;
        argv[count++] = store;
        store += n + 1;
        text += n;
    }
    argv[count] = NULL;
    return count;
}

/* The newest PREFIX-NN in PATH, then PREFIX itself, into command. */
static bool find_newest(const char *prefix, int newest, int oldest, char *command, size_t bytes) {
    char path[MOEC_PATH_BYTES];
    for (int version = newest; version >= oldest; version--) {
        snprintf(command, bytes, "%s-%d", prefix, version);
        if (moec_program_find(command, path)) return true;
    }
    snprintf(command, bytes, "%s", prefix);
    return moec_program_find(command, path);
}

static moec_status choose(compiler *c, moec_error *err) {
    const char *wanted = getenv("MOEC_CC");
    if (wanted && *wanted) {
        char program[512], path[MOEC_PATH_BYTES];
        snprintf(c->command, sizeof c->command, "%s", wanted);
        snprintf(program, sizeof program, "%.*s", (int)strcspn(wanted, " "), wanted);
        if (moec_program_find(program, path)) return MOEC_OK;
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "MOEC_CC=%s: no such compiler", wanted);
        return moec_hint(err, rc, "set MOEC_CC to a C compiler in PATH, or unset it");
    }
    if (find_newest("clang", 19, 19, c->command, sizeof c->command) &&
        !strcmp(c->command, "clang-19")) return MOEC_OK;
    if (find_newest("clang", 25, 11, c->command, sizeof c->command)) return MOEC_OK;
    if (find_newest("gcc", 20, 10, c->command, sizeof c->command)) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_TOOL, "no C compiler was found in PATH (looked for clang-19, "
                               "clang-NN, clang, gcc-NN, gcc)");
    return moec_hint(err, rc, "apt install clang-19 (or clang, or gcc), or set MOEC_CC");
}

static moec_status ask_version(compiler *c, moec_error *err) {
    char store[WORD_BYTES], output[2048];
    const char *argv[MAX_WORDS];
    int count = split(c->command, store, argv, 0);
    argv[count] = "--version";
    argv[count + 1] = NULL;
    moec_process p = {.argv = argv, .limit_s = moec_compile_limit_s(), .output = output,
                      .output_bytes = sizeof output};
    MOEC_TRY(moec_process_run(&p, err));
    if (p.exit_code)
        return moec_fail(err, MOEC_E_TOOL, "%s --version failed with exit code %d: %.500s",
                         c->command, p.exit_code, output);
    snprintf(c->version, sizeof c->version, "%.*s", (int)strcspn(output, "\n"), output);
    return MOEC_OK;
}

/* The process's compiler. A failure is remembered for the same MOEC_CC and PATH only. */
static moec_status get_compiler(const compiler **out, moec_error *err) {
    static char asked[8192];
    char now[8192];
    const char *wanted = getenv("MOEC_CC"), *path = getenv("PATH");
    snprintf(now, sizeof now, "%s|%s", wanted ? wanted : "", path ? path : "");
    pthread_mutex_lock(&cc_lock);
    if (strcmp(asked, now)) {
        memset(&cc, 0, sizeof cc);
        cc.rc = choose(&cc, &cc.err);
        if (!cc.rc) cc.rc = ask_version(&cc, &cc.err);
        memcpy(asked, now, sizeof asked);
    }
    moec_status rc = cc.rc;
    if (rc) moec_fail(err, rc, "%s", cc.err.text);
    pthread_mutex_unlock(&cc_lock);
    *out = &cc;
    return rc;
}

static const char *extra_flags(void) {
    const char *flags = getenv("MOEC_CFLAGS");
    return flags ? flags : "";
}

static moec_status identify(const moec_target *machine, char id[MOEC_TOOLCHAIN_ID_BYTES],
                            moec_error *err) {
    const compiler *c;
    MOEC_TRY(get_compiler(&c, err));
    snprintf(id, MOEC_TOOLCHAIN_ID_BYTES, "%s (%s) %s %s %s", c->command, c->version, base_flags,
             moec_cpu_flags(machine), extra_flags());
    return MOEC_OK;
}

/* The compiler said no: its words, cut to what an error holds; all of them are in log.txt. */
static moec_status rejected(const char *command, const char *dir, const char *source, char *output,
                            int exit_code, moec_error *err) {
    char log[MOEC_PATH_BYTES];
    if (!moec_path(log, NULL, "%s/log.txt", dir))
        (void)moec_file_write(log, output, strlen(output), false, NULL);
    return moec_fail(err, MOEC_E_COMPILE, "%s rejected %s (exit code %d)\n%.*s", command, source,
                     exit_code, (int)SHOWN_BYTES, output);
}

static moec_status compile(const moec_target *machine, const char *dir, const char *source,
                           const char *binary, moec_error *err) {
    const compiler *c;
    char text[WORD_BYTES], store[WORD_BYTES], built[MOEC_PATH_BYTES];
    const char *argv[MAX_WORDS];
    MOEC_TRY(get_compiler(&c, err));
    MOEC_TRY(moec_path(built, err, "%s/%s", dir, binary));
    int n = snprintf(text, sizeof text, "%s %s %s %s -o %s %s", c->command, base_flags,
                     moec_cpu_flags(machine), extra_flags(), binary, source);
    if (n >= (int)sizeof text)
        return moec_fail(err, MOEC_E_INVAL, "the compiler's command line is longer than %d bytes",
                         WORD_BYTES);
    split(text, store, argv, 0);
    char *output = calloc(1, LOG_BYTES);
    if (!output) return moec_fail(err, MOEC_E_NOMEM, "out of memory: a compiler's log");
    moec_process p = {.argv = argv, .directory = dir, .limit_s = moec_compile_limit_s(),
                      .output = output, .output_bytes = LOG_BYTES};
    moec_count(MOEC_COUNT_COMPILE);
    moec_status rc = moec_process_run(&p, err);
    if (rc == MOEC_E_TIMEOUT)
        rc = moec_hint(err, rc, "raise MOEC_COMPILE_TIMEOUT (seconds), or set MOEC_CC to another "
                       "compiler");
    else if (!rc && (p.exit_code || access(built, R_OK)))
        rc = rejected(c->command, dir, source, output, p.exit_code, err);
    free(output);
    return rc;
}

const moec_toolchain moec_cc_toolchain = {
    .family = "cpu", .suffix = ".so", .identify = identify, .compile = compile,
};
