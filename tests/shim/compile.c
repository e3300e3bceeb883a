/* The shim's toolchain: clang reads prelude.h, then the kernel as it was emitted.
 *
 * -fconvergent-functions: like a GPU compiler, it neither duplicates nor moves an operation in which lanes
 * meet, so that one place in the text is one place in the code. The address sanitizer of kernels puts a
 * call in front of each load and store; its own checks, of stacks and globals, are off. Arrays in registers,
 * alignment, shifts and overflow are checked where C++ leaves them undefined. Products and sums are not
 * contracted. Variables start as a pattern (NaN), since registers start as anything. */
#include "compile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../runtime/compiler.h"
#include "../../runtime/fs.h"
#include "../../runtime/subprocess.h"

/* The text in front of kernels, made from abi.h and prelude.h by the build. */
extern const moec_template_file shim_files[];
extern const int shim_file_count;

static const char flags[] = "-x c++ -std=gnu++20 -O2 -fno-vectorize -fno-slp-vectorize -g1 -fPIC -shared -fno-exceptions -fno-rtti -fconvergent-functions "
    "-fno-math-errno -ffp-contract=off -ftrivial-auto-var-init=pattern -fno-strict-aliasing "
    "-fsanitize=bounds,alignment,shift,integer-divide-by-zero,signed-integer-overflow -fno-sanitize-recover=undefined "
    "-fsanitize=kernel-address -mllvm -asan-instrumentation-with-call-threshold=0 -mllvm -asan-stack=0 "
    "-mllvm -asan-globals=0 -mllvm -asan-opt-globals=0 -mllvm -asan-opt-same-temp=0 "
    "-mllvm -asan-kernel-mem-intrinsic-prefix=1 "
    "-Wno-ignored-attributes -Wno-unknown-attributes -Wno-psabi -Wno-unused-function -include shim.h";

static moec_status choose(char *command, size_t bytes, moec_error *err) {
    char path[MOEC_PATH_BYTES];
    snprintf(command, bytes, "clang-19");
    if (moec_program_find(command, path) || compiler_newest("clang", 25, 17, command, bytes)) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_TOOL, "no clang was found, which the host shim compiles kernels with");
    return moec_hint(err, rc, "apt install clang-19");
}

/* What stands in front of a kernel; malloc'ed. */
static char *front(size_t *bytes) {
    *bytes = 0;
    for (int i = 0; i < shim_file_count; i++) *bytes += shim_files[i].bytes;
    char *text = malloc(*bytes + 1), *at = text;
    for (int i = 0; text && i < shim_file_count; at += shim_files[i++].bytes)
        memcpy(at, shim_files[i].text, shim_files[i].bytes);
    return text;
}

static moec_status identify(const moec_target *machine, char id[MOEC_TOOLCHAIN_ID_BYTES], moec_error *err) {
    char command[64], version[128], hash[33];
    size_t bytes;
    (void)machine;
    MOEC_TRY(choose(command, sizeof command, err));
    MOEC_TRY(compiler_version(command, version, sizeof version, err));
    char *text = front(&bytes);
    if (!text) return moec_fail(err, MOEC_E_NOMEM, "out of memory: prelude");
    moec_hash_hex(text, bytes, hash);
    free(text);
    snprintf(id, MOEC_TOOLCHAIN_ID_BYTES, "shim %s (%s) %s %s", command, version, hash, flags);
    return MOEC_OK;
}

static moec_status compile(const moec_target *machine, const char *dir, const char *source, const char *binary,
                           moec_error *err) {
    char program[64], command[COMPILER_WORD_BYTES], path[MOEC_PATH_BYTES];
    size_t bytes;
    (void)machine;
    MOEC_TRY(choose(program, sizeof program, err));
    MOEC_TRY(moec_path(path, err, "%s/shim.h", dir));
    char *text = front(&bytes);
    if (!text) return moec_fail(err, MOEC_E_NOMEM, "out of memory: prelude");
    moec_status rc = moec_file_write(path, text, bytes, false, err);
    free(text);
    snprintf(command, sizeof command, "%s %s", program, flags);
    return rc ? rc : compiler_run(command, dir, source, binary, err);
}

const moec_toolchain shim_toolchain = {
    .family = "hip", .suffix = ".host.so", .identify = identify, .compile = compile,
};
