/* code_object: what an AMD code object says about itself: machine, registers, spills, LDS.
 *
 * Read from the bytes: the ELF header, and the note with the kernels' metadata (MessagePack). Key
 * names and machine numbers: LLVM's "User Guide for AMDGPU Backend". */
#ifndef MOEC_CODE_OBJECT_H
#define MOEC_CODE_OBJECT_H

#include <stddef.h>
#include <stdint.h>

#include "../gen/gen.h"

typedef struct moec_code_object {
    int64_t vgprs, agprs, sgprs;        /* a lane's vector registers (both kinds), accumulation ones
                                         * among them; scalar registers of a wave */
    int64_t vgpr_spills, sgpr_spills;
    int64_t scratch_bytes;              /* a lane's */
    int64_t lds_bytes;                  /* static part, a workgroup's */
} moec_code_object;

/* The first kernel of the object. E_CORRUPT when the bytes are no code object with metadata, E_TOOL when they
 * are one for another machine than `target`. */
moec_status moec_code_object_read(const void *bytes, size_t count, const moec_target *target,
                                  moec_code_object *out, moec_error *err);

/* Does the object have the LDS and the room for waves that the kernel's template promises? E_COMPILE with the
 * numbers when not. */
moec_status moec_code_object_keeps(const moec_code_object *object, const moec_promise *promise,
                                   moec_error *err);

/* Level 0: no kernel may spill or use scratch memory. E_COMPILE with the numbers. */
moec_status moec_code_object_check(const char *path, const moec_target *target, moec_error *err);

#endif
