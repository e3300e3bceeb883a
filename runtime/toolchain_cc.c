/* The CPU family's toolchain: a C compiler as a subprocess.
 *
 * Choice, once per process: $MOEC_CC (may hold arguments, "ccache clang-19"), else clang-19, then
 * the newest other clang, then the newest gcc. Emitted kernels include no header and call no
 * library but libm, so -nostdlib saves the linker's search. Value-changing flags such as
 * -ffast-math are never used; contraction to FMA and no errno are. $MOEC_CFLAGS is appended.
 */
#include "toolchain.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler.h"
#include "device.h"
#include "fs.h"
#include "setting.h"
#include "subprocess.h"

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

static moec_status choose(compiler *c, moec_error *err) {
    const char *wanted = moec_setting("MOEC_CC");
    if (wanted) {
        char program[512], path[MOEC_PATH_BYTES];
        snprintf(c->command, sizeof c->command, "%s", wanted);
        snprintf(program, sizeof program, "%.*s", (int)strcspn(wanted, " "), wanted);
        if (moec_program_find(program, path)) return MOEC_OK;
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "MOEC_CC=%s: no such compiler", wanted);
        return moec_hint(err, rc, "set MOEC_CC to a C compiler in PATH, or unset it");
    }
    if (compiler_newest("clang", 19, 19, c->command, sizeof c->command) &&
        !strcmp(c->command, "clang-19")) return MOEC_OK;
    if (compiler_newest("clang", 25, 11, c->command, sizeof c->command)) return MOEC_OK;
    if (compiler_newest("gcc", 20, 10, c->command, sizeof c->command)) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_TOOL,
                               "no C compiler was found in PATH (looked for clang-19, "
                               "clang-NN, clang, gcc-NN, gcc)");
    return moec_hint(err, rc, "apt install clang-19 (or clang, or gcc), or set MOEC_CC");
}


/* The process's compiler. A failure is remembered for the same MOEC_CC and PATH only. */
static moec_status get_compiler(const compiler **out, moec_error *err) {
    static char asked[8192];
    char now[8192];
    const char *wanted = moec_setting("MOEC_CC"), *path = getenv("PATH");
    double limit;
    MOEC_TRY(moec_compile_limit(&limit, err)); /* this one is not remembered */
    snprintf(now, sizeof now, "%s|%s", wanted ? wanted : "", path ? path : "");
    pthread_mutex_lock(&cc_lock);
    if (strcmp(asked, now)) {
        memset(&cc, 0, sizeof cc);
        cc.rc = choose(&cc, &cc.err);
        if (!cc.rc) cc.rc = compiler_version(cc.command, cc.version, sizeof cc.version, &cc.err);
        memcpy(asked, now, sizeof asked);
    }
    moec_status rc = cc.rc;
    if (rc) moec_fail(err, rc, "%s", cc.err.text);
    pthread_mutex_unlock(&cc_lock);
    *out = &cc;
    return rc;
}

static const char *extra_flags(void) {
    const char *flags = moec_setting("MOEC_CFLAGS");
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

static moec_status compile(const moec_target *machine, const char *dir, const char *source,
                           const char *binary, moec_error *err) {
    const compiler *c;
    char command[COMPILER_WORD_BYTES];
    MOEC_TRY(get_compiler(&c, err));
    snprintf(command, sizeof command, "%s %s %s %s", c->command, base_flags,
             moec_cpu_flags(machine), extra_flags());
    return compiler_run(command, dir, source, binary, err);
}

const moec_toolchain moec_cc_toolchain = {
    .family = "cpu", .suffix = ".so", .identify = identify, .compile = compile,
};
