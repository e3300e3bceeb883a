/* The HIP family's toolchain: clang with the AMDGPU back end as a subprocess, or hiprtc in a worker process.
 * No ROCm is needed for clang: the emitted text includes nothing and links nothing.
 *
 * What comes out must be a code object for the machine asked for, and pass level 0: a kernel that spills or
 * uses scratch memory is refused.
 *
 * Choice: $MOEC_HIPCC, else hiprtc if $MOEC_HIPRTC names it, else clang-19 and newer, else ROCm's own clang,
 * else hiprtc: clang ends in its own process when it fails, and is as new as its name says. Code object
 * version 5 is what ROCm 5.4 and later load. The raw code object is kept, without a bundle around it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "code_object.h"
#include "compiler.h"
#include "fs.h"
#include "setting.h"
#include "subprocess.h"
#include "toolchain.h"
#include "toolchain_hiprtc.h"

static const char base_flags[] = "-x hip --cuda-device-only --no-gpu-bundle-output -nogpuinc -nogpulib "
                                 "-O3 -fno-math-errno -ffp-contract=fast -mcode-object-version=5 "
                                 "-Wno-unused-function";

static const char *const own[] = {"/opt/rocm/llvm/bin/clang", "/opt/rocm/lib/llvm/bin/clang"};

/* A clang's command, or "" where hiprtc is to be used. */
static moec_status choose(char *command, size_t bytes, moec_error *err) {
    const char *wanted = moec_setting("MOEC_HIPCC");
    char path[MOEC_PATH_BYTES];
    if (wanted) {
        snprintf(command, bytes, "%s", wanted);
        if (moec_program_find(wanted, path)) return MOEC_OK;
        moec_status rc = moec_fail(err, MOEC_E_TOOL, "MOEC_HIPCC=%s: no such compiler", wanted);
        return moec_hint(err, rc, "set MOEC_HIPCC to a clang with the AMDGPU back end, or unset it");
    }
    if (!moec_setting("MOEC_HIPRTC")) {
        snprintf(command, bytes, "clang-19");
        if (moec_program_find(command, path)) return MOEC_OK;
        if (compiler_newest("clang", 25, 17, command, bytes) && strcmp(command, "clang")) return MOEC_OK;
        for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
            snprintf(command, bytes, "%s", own[i]);
            if (moec_program_find(command, path)) return MOEC_OK;
        }
    }
    *command = 0;
    return MOEC_OK;
}

static moec_status identify_hiprtc(const moec_target *machine, char id[MOEC_TOOLCHAIN_ID_BYTES],
                                   moec_error *err) {
    char hiprtc[512];
    moec_status rc = moec_hiprtc_identify(hiprtc, sizeof hiprtc, err);
    if (rc && !moec_setting("MOEC_HIPRTC"))
        return moec_context(err, rc, "no clang that knows gfx942 was found (looked for clang-17 to clang-25 in PATH "
                            "and for ROCm's under /opt/rocm), and no hiprtc");
    if (!rc) snprintf(id, MOEC_TOOLCHAIN_ID_BYTES, "%s %s", hiprtc, machine->flags);
    return rc;
}

static moec_status identify(const moec_target *machine, char id[MOEC_TOOLCHAIN_ID_BYTES],
                            moec_error *err) {
    char command[512], version[256];
    MOEC_TRY(choose(command, sizeof command, err));
    if (!*command) return identify_hiprtc(machine, id, err);
    MOEC_TRY(compiler_version(command, version, sizeof version, err));
    snprintf(id, MOEC_TOOLCHAIN_ID_BYTES, "%s (%s) %s %s", command, version, base_flags, machine->flags);
    return MOEC_OK;
}

static moec_status run(const char *program, const moec_target *machine, const char *dir, const char *source,
                       const char *binary, moec_error *err) {
    char command[COMPILER_WORD_BYTES];
    if (!*program) return moec_hiprtc_compile(machine, dir, source, binary, err);
    snprintf(command, sizeof command, "%s %s %s -c", program, base_flags, machine->flags);
    return compiler_run(command, dir, source, binary, err);
}

static moec_status compile(const moec_target *machine, const char *dir, const char *source,
                           const char *binary, moec_error *err) {
    char program[512], path[MOEC_PATH_BYTES];
    MOEC_TRY(choose(program, sizeof program, err));
    MOEC_TRY(run(program, machine, dir, source, binary, err));
    MOEC_TRY(moec_path(path, err, "%s/%s", dir, binary));
    moec_status rc = moec_code_object_check(path, machine, err);
    return rc ? moec_context(err, rc, "checking what %s made of %s", *program ? program : "hiprtc", source) : MOEC_OK;
}

moec_status moec_hip_assembly(const moec_target *machine, const char *dir, const char *source, const char *listing,
                              moec_error *err) {
    char program[512], command[COMPILER_WORD_BYTES];
    MOEC_TRY(choose(program, sizeof program, err));
    if (!*program) return moec_fail(err, MOEC_E_UNSUPPORTED, "hiprtc gives no assembly text; clang does");
    snprintf(command, sizeof command, "%s %s %s -S", program, base_flags, machine->flags);
    return compiler_run(command, dir, source, listing, err);
}

const moec_toolchain moec_hip_toolchain = {
    .family = "hip", .suffix = ".co", .identify = identify, .compile = compile,
};
