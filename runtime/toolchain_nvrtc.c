/* The CUDA family's toolchain: NVRTC in this process, straight to a cubin (PTX for the generic target).
 *
 * The log carries ptxas' report. A kernel that needs more shared memory than there is cannot start; one
 * that spills registers, keeps an array in local memory, or whose wgmma instructions ptxas had to serialise,
 * is far slower than it looks: all of these are errors here, so that no search and no user meets such a
 * binary unawares. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dl_nvrtc.h"
#include "fs.h"
#include "toolchain.h"

static const char *const options[] = {"-default-device", "--std=c++17", "--ptxas-options=-v",
                                      "--diag-suppress=177"};
enum { OPTION_COUNT = sizeof options / sizeof *options, LOG_SHOWN = 2000 };

static moec_status identify(const moec_target *machine, char id[MOEC_TOOLCHAIN_ID_BYTES],
                            moec_error *err) {
    const moec_nvrtc *nvrtc;
    MOEC_TRY(moec_nvrtc_open(&nvrtc, err));
    int n = snprintf(id, MOEC_TOOLCHAIN_ID_BYTES, "nvrtc %d.%d %s", nvrtc->major, nvrtc->minor,
                     machine->flags);
    for (int i = 0; i < OPTION_COUNT; i++)
        n += snprintf(id + n, (size_t)(MOEC_TOOLCHAIN_ID_BYTES - n), " %s", options[i]);
    return MOEC_OK;
}

/* ---- the compiler's report ---- */

/* The number before `word` in the log, largest over all lines; 0 when absent. */
static long largest_before(const char *log, const char *word) {
    long largest = 0;
    for (const char *at = log; (at = strstr(at, word)); at += strlen(word)) {
        const char *digit = at;
        while (digit > log && digit[-1] == ' ') digit--;
        while (digit > log && digit[-1] >= '0' && digit[-1] <= '9') digit--;
        long value = strtol(digit, NULL, 10);
        if (value > largest) largest = value;
    }
    return largest;
}

static moec_status refuse(const moec_target *machine, const char *log, moec_error *err) {
    long shared = largest_before(log, "bytes smem");
    if (machine->shared_bytes && shared > machine->shared_bytes)
        return moec_fail(err, MOEC_E_COMPILE, "the kernel uses %ld bytes of shared memory, %s has %d a block", shared,
                         machine->name, machine->shared_bytes);
    long spill = largest_before(log, "bytes spill stores");
    if (spill)
        return moec_fail(err, MOEC_E_COMPILE, "the kernel spills %ld bytes of registers", spill);
    long frame = largest_before(log, "bytes stack frame"); /* what is spilled lies in it too */
    if (frame)
        return moec_fail(err, MOEC_E_COMPILE, "the kernel keeps %ld bytes a thread in local memory", frame);
    const char *serial = strstr(log, "wgmma.mma_async instructions are serialized");
    if (serial)
        return moec_fail(err, MOEC_E_COMPILE, "ptxas serialises the kernel's wgmma instructions: %.200s",
                         serial);
    return MOEC_OK;
}

static moec_status judge(const moec_target *machine, const char *log, moec_error *err) {
    moec_status rc = refuse(machine, log, err);
    return rc ? moec_hint(err, rc, "another config may fit: --config names one, moec tune looks for it") : MOEC_OK;
}

/* ---- one compilation ---- */

static char *read_log(const moec_nvrtc *nvrtc, nvrtcProgram program) {
    size_t bytes = 0;
    nvrtc->log_size(program, &bytes);
    char *log = calloc(1, bytes + 1);
    if (log) nvrtc->log(program, log);
    return log;
}

/* A target of a virtual architecture (compute_80) keeps PTX under the binary's name: the driver
 * takes both, and finishes PTX for the GPU at hand. */
static moec_status write_image(const moec_nvrtc *nvrtc, nvrtcProgram program, bool ptx,
                               const char *path, moec_error *err) {
    size_t bytes = 0;
    (ptx ? nvrtc->ptx_size : nvrtc->cubin_size)(program, &bytes);
    char *image = malloc(bytes + 1);
    if (!image) return moec_fail(err, MOEC_E_NOMEM, "out of memory for a cubin of %zu bytes", bytes);
    (ptx ? nvrtc->ptx : nvrtc->cubin)(program, image);
    moec_status rc = moec_file_write(path, image, bytes, true, err);
    free(image);
    return rc;
}

static moec_status run(const moec_nvrtc *nvrtc, const moec_target *machine, const char *text,
                       const char *name, const char *dir, const char *binary, moec_error *err) {
    const char *argv[OPTION_COUNT + 1] = {machine->flags};
    char path[MOEC_PATH_BYTES];
    nvrtcProgram program;
    memcpy(argv + 1, options, sizeof options);
    int result = nvrtc->create(&program, text, name, 0, NULL, NULL);
    if (result)
        return moec_fail(err, MOEC_E_COMPILE, "nvrtcCreateProgram: %s", nvrtc->error_text(result));
    result = nvrtc->compile(program, OPTION_COUNT + 1, argv);
    char *log = read_log(nvrtc, program);
    moec_status rc = moec_path(path, err, "%s/log.txt", dir);
    if (!rc && log) rc = moec_file_write(path, log, strlen(log), false, err);
    if (!rc) rc = judge(machine, log ? log : "", err);
    if (!rc && result)
        rc = moec_fail(err, MOEC_E_COMPILE, "NVRTC rejects %s/%s: %s\n%.*s", dir, name,
                       nvrtc->error_text(result), LOG_SHOWN, log ? log : "");
    if (!rc) rc = moec_path(path, err, "%s/%s", dir, binary);
    if (!rc) rc = write_image(nvrtc, program, strstr(machine->flags, "compute_") != NULL, path, err);
    free(log);
    nvrtc->destroy(&program);
    return rc;
}

static moec_status compile(const moec_target *machine, const char *dir, const char *source,
                           const char *binary, moec_error *err) {
    const moec_nvrtc *nvrtc;
    char path[MOEC_PATH_BYTES], *text = NULL;
    size_t bytes;
    MOEC_TRY(moec_nvrtc_open(&nvrtc, err));
    MOEC_TRY(moec_path(path, err, "%s/%s", dir, source));
    MOEC_TRY(moec_file_read(path, &text, &bytes, err));
    moec_status rc = run(nvrtc, machine, text, source, dir, binary, err);
    free(text);
    return rc;
}

const moec_toolchain moec_nvrtc_toolchain = {
    .family = "cuda", .suffix = ".cubin", .identify = identify, .compile = compile,
};
