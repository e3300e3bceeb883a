/* toolchain_hiprtc: compiling HIP with hiprtc, in a process of its own (dl_hiprtc.c). What toolchain_hip.c
 * falls back to where there is no clang. */
#ifndef MOEC_TOOLCHAIN_HIPRTC_H
#define MOEC_TOOLCHAIN_HIPRTC_H

#include <stddef.h>

#include "../gen/gen.h"

/* "hiprtc 9.0 (PATH, BYTES bytes of SECONDS)". E_TOOL when the worker or the library is missing, of another version, or aborts. */
moec_status moec_hiprtc_identify(char *id, size_t bytes, moec_error *err);

/* Compiles DIR/SOURCE to DIR/BINARY. E_COMPILE with the log when the source is rejected, E_TOOL when hiprtc
 * takes its process down, E_TIMEOUT when it does not end. */
moec_status moec_hiprtc_compile(const moec_target *machine, const char *dir, const char *source,
                                const char *binary, moec_error *err);

#endif
