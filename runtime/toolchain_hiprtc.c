/* Starts the worker and says what became of it. Invariants: hiprtc never runs in this process; whatever the
 * worker does, the caller gets a status and DIR/log.txt has what was said. */
#include "toolchain_hiprtc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "fs.h"
#include "setting.h"
#include "subprocess.h"
#include "toolchain.h"

enum { WORKER_REJECTED = 1, WORKER_NO_HIPRTC = 4, SIGNALLED = 128, LOG_BYTES = 64 * 1024, SHOWN = 2400 };

static const char install[] = "install clang-19 (MOEC_HIPCC names another clang), or ROCm's hiprtc "
                              "(MOEC_HIPRTC names its library)";

/* $MOEC_HIPRTC_WORKER, else moec-hiprtc beside the program, else in PATH. */
static moec_status find_worker(char *path, moec_error *err) {
    const char *wish = moec_setting("MOEC_HIPRTC_WORKER");
    char program[MOEC_PATH_BYTES] = "", beside[MOEC_PATH_BYTES];
    if (wish && moec_program_find(wish, path)) return MOEC_OK;
    ssize_t n = wish ? 0 : readlink("/proc/self/exe", program, sizeof program - 1);
    char *slash = n > 0 ? strrchr(program, '/') : NULL;
    if (slash) *slash = 0;
    if (slash && !moec_path(beside, NULL, "%s/moec-hiprtc", program) && moec_program_find(beside, path))
        return MOEC_OK;
    if (!wish && moec_program_find("moec-hiprtc", path)) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_TOOL, "the worker that runs hiprtc, %s, was not found",
                               wish ? wish : "moec-hiprtc");
    return moec_hint(err, rc, "ninja builds build/moec-hiprtc; keep it beside the program, in PATH, or in "
                     "MOEC_HIPRTC_WORKER");
}

/* One call of the worker; OK when it did what it was asked. */
static moec_status call(const char **argv, const char *dir, char *output, moec_error *err) {
    char worker[MOEC_PATH_BYTES];
    MOEC_TRY(find_worker(worker, err));
    argv[0] = worker;
    moec_process p = {.argv = argv, .directory = dir, .output = output, .output_bytes = LOG_BYTES};
    MOEC_TRY(moec_compile_limit(&p.limit_s, err));
    moec_status rc = moec_process_run(&p, err);
    if (rc == MOEC_E_TIMEOUT) {
        rc = moec_context(err, rc, "hiprtc hangs");
        return moec_hint(err, rc, "raise MOEC_COMPILE_TIMEOUT (seconds), or %s", install);
    }
    if (rc || !p.exit_code) return rc;
    if (p.exit_code > SIGNALLED) {
        rc = moec_fail(err, MOEC_E_TOOL, "hiprtc took its process down (signal %d), as it does when it does not "
                       "know an architecture: %.300s", p.exit_code - SIGNALLED, *output ? output : "it said nothing");
        return moec_hint(err, rc, "this process is not affected; %s", install);
    }
    if (p.exit_code == WORKER_REJECTED)
        return moec_fail(err, MOEC_E_COMPILE, "hiprtc rejected the kernel\n%.*s", (int)SHOWN, output);
    rc = moec_fail(err, MOEC_E_TOOL, "%.*s", (int)strcspn(output, "\n"),
                   p.exit_code == WORKER_NO_HIPRTC && *output ? output : "hiprtc's worker failed");
    return moec_hint(err, rc, "%s", install);
}

moec_status moec_hiprtc_identify(char *id, size_t bytes, moec_error *err) {
    const char *argv[] = {"", "version", NULL};
    char *output = calloc(1, LOG_BYTES);
    if (!output) return moec_fail(err, MOEC_E_NOMEM, "out of memory: a compiler's log");
    moec_status rc = call(argv, NULL, output, err);
    if (!rc) {
        size_t version = strcspn(output, " \n"), end = strcspn(output, "\n");
        snprintf(id, bytes, "hiprtc %.*s (%.*s)", (int)version, output, (int)(end - version) - 1,
                 output + version + 1);
    }
    free(output);
    return rc;
}

moec_status moec_hiprtc_compile(const moec_target *machine, const char *dir, const char *source,
                                const char *binary, moec_error *err) {
    const char *argv[] = {"", "compile", source, binary, machine->flags, "-O3", "-fno-math-errno",
                          "-ffp-contract=fast", "-Wno-unused-function", NULL};
    char log[MOEC_PATH_BYTES], *output = calloc(1, LOG_BYTES);
    if (!output) return moec_fail(err, MOEC_E_NOMEM, "out of memory: a compiler's log");
    moec_count(MOEC_COUNT_COMPILE);
    moec_status rc = call(argv, dir, output, err);
    if (rc && *output && !moec_path(log, NULL, "%s/log.txt", dir))
        (void)moec_file_write(log, output, strlen(output), false, NULL);
    free(output);
    return rc ? moec_context(err, rc, "hiprtc compiling %s for %s", source, machine->name) : MOEC_OK;
}
