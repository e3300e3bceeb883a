/* model: what a matrix kernel for an AMD GPU could reach at best, from its config and its code object.
 *
 * A model, never a measurement: cycles of the matrix units, LDS and vector caches for one step of BK of the main
 * loop, operands in cache. Two bounds on the share of time in which the matrix units work:
 *
 * - alone: one block on a compute unit, its main loop walked instruction by instruction (model_walk.h): what the
 *   compiler put between the matrix instructions, waits and barriers cost what they cost one wave a SIMD.
 * - together: the blocks that fit on a compute unit, a wave of each on every SIMD. While one waits another
 *   works, so the unit that is busiest over all of them sets the pace: an upper bound that supposes they fall
 *   out of step, as independent blocks tend to and nothing enforces.
 *
 * What comes on top of either: a tile's first loads and its epilogue, part-filled tiles at an expert's last rows,
 * misses, the clock under load. Rates: CDNA2 and CDNA3 ISA manuals
 * and AMD's matrix instruction calculator; LDS 128 bytes a clock, vector cache 64. */
#ifndef MOEC_MODEL_H
#define MOEC_MODEL_H

#include "layer.h"

typedef struct moec_model_row {
    char name[24], config[160];
    int64_t registers, lds_bytes, spills; /* a lane's vector registers; a block's LDS */
    int blocks;                           /* that fit on a compute unit, a wave of each on a SIMD */
    double mfma_alone;                    /* share of the loop's time that the matrix units are busy: one block;
                                             0 where the compiler shows no assembly */
    double mfma, lds, cache;              /* all that fit: busy matrix units, LDS, cache */
    double flops, bytes, roofline_ms;     /* whole GPU (gfx90a: one GCD), at peak */
    double compile_s;
} moec_model_row;

/* Compiles the kernel of a layer row and fills `out`; E_UNSUPPORTED when the target is no AMD GPU.
 * Kernels without matrix tiles get registers, bytes and the roofline time only. */
moec_status moec_model(moec_gen *gen, const moec_target *target, const moec_layer_row *row,
                       const moec_spec *spec, int64_t tokens, moec_model_row *out, moec_error *err);

#endif
