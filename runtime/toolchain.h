/* toolchain: who turns emitted text into a binary for a family of targets.
 *
 * Separate from devices, so that `moec gen --compile` works on a machine without the device. One
 * row per family in toolchain.c; compile may be called from several threads at once. */
#ifndef MOEC_TOOLCHAIN_H
#define MOEC_TOOLCHAIN_H

#include "../gen/gen.h"

enum { MOEC_TOOLCHAIN_ID_BYTES = 1024 };

typedef struct moec_toolchain {
    const char *family;
    const char *suffix;  /* of binaries: ".so", ".cubin", ".co" */
    /* Name, version and flags in one line: part of the cache key. E_TOOL when none is found. */
    moec_status (*identify)(const moec_target *machine, char id[MOEC_TOOLCHAIN_ID_BYTES],
                            moec_error *err);
    /* Compiles DIR/SOURCE to DIR/BINARY for `machine` (kernel->target or one that it falls back
     * from). The compiler's own message goes to *err, and to DIR/log.txt in full. */
    moec_status (*compile)(const moec_target *machine, const char *dir, const char *source,
                           const char *binary, moec_error *err);
} moec_toolchain;

extern const moec_toolchain moec_cc_toolchain; /* toolchain_cc.c */
extern const moec_toolchain moec_nvrtc_toolchain; /* toolchain_nvrtc.c */
extern const moec_toolchain moec_hip_toolchain; /* toolchain_hip.c */

/* DIR/SOURCE of the HIP family as assembly text in DIR/LISTING: the instructions that compile makes of it.
 * E_UNSUPPORTED where hiprtc is the compiler. toolchain_hip.c */
moec_status moec_hip_assembly(const moec_target *machine, const char *dir, const char *source, const char *listing,
                              moec_error *err);

/* The family's toolchain; NULL when this build has none for it. */
const moec_toolchain *moec_toolchain_find(const char *family);

/* Seconds a compiler may run: MOEC_COMPILE_TIMEOUT, 120 by default. E_INVAL: the setting is no such number. */
moec_status moec_compile_limit(double *seconds, moec_error *err);

#endif
