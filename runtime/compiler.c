/* Compilers as subprocesses. They run inside the build directory with relative names: their output
 * does not depend on where that is. */
#include "compiler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "fs.h"
#include "subprocess.h"
#include "toolchain.h"

enum { MAX_WORDS = 64, LOG_BYTES = 64 * 1024, SHOWN_BYTES = 2400 };

bool compiler_newest(const char *prefix, int newest, int oldest, char *command, size_t bytes) {
    char path[MOEC_PATH_BYTES];
    for (int version = newest; version >= oldest; version--) {
        snprintf(command, bytes, "%s-%d", prefix, version);
        if (moec_program_find(command, path)) return true;
    }
    snprintf(command, bytes, "%s", prefix);
    return moec_program_find(command, path);
}

/* Splits at spaces into words that live in `store`. */
static int split(const char *text, char *store, const char **argv) {
    int count = 0;
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

moec_status compiler_version(const char *command, char *version, size_t bytes, moec_error *err) {
    char words[COMPILER_WORD_BYTES], store[COMPILER_WORD_BYTES], output[2048];
    const char *argv[MAX_WORDS];
    snprintf(words, sizeof words, "%s --version", command);
    split(words, store, argv);
    moec_process p = {.argv = argv, .output = output, .output_bytes = sizeof output};
    MOEC_TRY(moec_compile_limit(&p.limit_s, err));
    MOEC_TRY(moec_process_run(&p, err));
    if (p.exit_code)
        return moec_fail(err, MOEC_E_TOOL, "%s --version failed with exit code %d: %.500s", command,
                         p.exit_code, output);
    snprintf(version, bytes, "%.*s", (int)strcspn(output, "\n"), output);
    return MOEC_OK;
}

/* The compiler said no: its words, cut to what an error holds; all of them are in log.txt. */
static moec_status rejected(const char *command, const char *dir, const char *source,
                            const char *output, int exit_code, moec_error *err) {
    char log[MOEC_PATH_BYTES];
    if (!moec_path(log, NULL, "%s/log.txt", dir))
        (void)moec_file_write(log, output, strlen(output), false, NULL);
    return moec_fail(err, MOEC_E_COMPILE, "%.*s rejected %s (exit code %d)\n%.*s",
                     (int)strcspn(command, " "), command, source, exit_code, (int)SHOWN_BYTES, output);
}

moec_status compiler_run(const char *command, const char *dir, const char *source,
                         const char *binary, moec_error *err) {
    char words[COMPILER_WORD_BYTES], store[COMPILER_WORD_BYTES], built[MOEC_PATH_BYTES];
    const char *argv[MAX_WORDS];
    MOEC_TRY(moec_path(built, err, "%s/%s", dir, binary));
    int n = snprintf(words, sizeof words, "%s -o %s %s", command, binary, source);
    if (n >= (int)sizeof words)
        return moec_fail(err, MOEC_E_INVAL, "the compiler's command line is longer than %d bytes",
                         COMPILER_WORD_BYTES);
    split(words, store, argv);
    moec_process p = {.argv = argv, .directory = dir, .output_bytes = LOG_BYTES};
    MOEC_TRY(moec_compile_limit(&p.limit_s, err));
    char *output = p.output = calloc(1, LOG_BYTES);
    if (!output) return moec_fail(err, MOEC_E_NOMEM, "out of memory: a compiler's log");
    moec_count(MOEC_COUNT_COMPILE);
    moec_status rc = moec_process_run(&p, err);
    if (rc == MOEC_E_TIMEOUT)
        rc = moec_hint(err, rc, "raise MOEC_COMPILE_TIMEOUT (seconds), or name another compiler "
                       "(MOEC_CC; MOEC_HIPCC for HIP)");
    else if (!rc && (p.exit_code || access(built, R_OK)))
        rc = rejected(command, dir, source, output, p.exit_code, err);
    free(output);
    return rc;
}
