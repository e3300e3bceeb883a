/* moec: compile and run Mixture-of-Experts layers. The public interface (with status.h).
 *
 * A program opens a device, creates a layer from a spec text, and runs it forward and backward on
 * its own buffers. The library owns nothing it was not given, never prints, never exits, and after
 * moec_layer_create allocates nothing, compiles nothing and opens no file (moec_counters proves it).
 *
 * Every fallible call returns a moec_status and explains itself in the caller's moec_error.
 * Threads: different objects from different threads freely; one object from one thread at a time.
 *
 * Shapes: T tokens, H hidden, F expert width, U = 2F when the activation is gated else F,
 * E experts, K top-k, R = T*K routed rows. Row-major, last dimension contiguous. */
#ifndef MOEC_H
#define MOEC_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MOEC_VERSION_STRING "0.1.0"

/* ---- device ---- */

typedef struct moec_device moec_device;

/* Opens a target by name ("cpu-avx512", "sm_90a"), by family ("cpu": the best this machine has), or
 * with an index ("sm_90a:1"). `threads` is for CPU targets, 0 means one per core.
 * E_DEVICE when the machine cannot run it, E_TOOL when a driver or compiler is missing. */
moec_status moec_device_open(const char *target, int threads, moec_device **device, moec_error *err);
void moec_device_close(moec_device *device);
const char *moec_device_target(const moec_device *device); /* "cpu-avx512"; lives with the device */

/* Device memory for callers that have none of their own. `who` names the owner in error messages. */
moec_status moec_alloc(moec_device *device, size_t bytes, const char *who, void **ptr, moec_error *err);
void moec_free(moec_device *device, void *ptr);
moec_status moec_upload(moec_device *device, void *dst, const void *src, size_t bytes, moec_error *err);
moec_status moec_download(moec_device *device, void *dst, const void *src, size_t bytes,
                          moec_error *err);
/* Waits for all work given to `stream` (NULL: the default one; ignored on CPU). */
moec_status moec_synchronize(moec_device *device, void *stream, moec_error *err);

/* ---- layer ---- */

typedef struct moec_layer moec_layer;

typedef struct moec_layer_options {
    const char *plan;      /* plan file with a config for each op; NULL: defaults */
    int64_t tokens_hint;   /* expected T, guides default configs; 0: a large batch */
    int recompute;         /* 1: Hpre is not saved but recomputed in backward */
    int inference;         /* 1: forward only; no backward kernel is compiled */
    int column_blocks;     /* n > 1: down and dx run in column blocks, so that of their outputs [R][H]
                            * only one n-th exists at a time: less workspace, same bits, more reads of
                            * their inputs. n is lowered to a divisor of H/8; 0 or 1: whole */
} moec_layer_options;

/* Compiles (or finds in the cache) every kernel of the layer. `options` may be NULL. */
moec_status moec_layer_create(moec_device *device, const char *spec, const moec_layer_options *options,
                              moec_layer **layer, moec_error *err);
void moec_layer_free(moec_layer *layer);

/* Bytes of the caller's buffers for a batch of T tokens; 256-byte alignment is required of both. */
size_t moec_layer_saved_bytes(const moec_layer *layer, int64_t T);     /* forward -> backward */
size_t moec_layer_workspace_bytes(const moec_layer *layer, int64_t T); /* scratch of either pass */

/* Weights as users store them: gate rows then up rows (layout=concat), or in turn. */
typedef struct moec_weights {
    const void *w1;        /* [E][U][H] */
    const void *b1;        /* [E][U], NULL without bias */
    const void *w2;        /* [E][H][F] */
    const void *b2;        /* [E][H], NULL without bias */
    const void *shared_w1; /* [2S or S][H], S = spec's shared; NULL without shared expert */
    const void *shared_w2; /* [H][S] */
} moec_weights;

typedef struct moec_forward {
    int64_t T;             /* tokens; 0 is fine */
    const void *x;         /* [T][H] */
    const float *logits;   /* [T][E] of the router; NULL: `expert` and `weight` are given */
    const float *sel_bias; /* [E], router=sigmoid_bias; may be NULL */
    const int32_t *expert; /* [T][K] when logits is NULL */
    const float *weight;   /* [T][K] when logits is NULL */
    moec_weights weights;
    void *out;             /* [T][H] */
    void *saved;           /* NULL: inference, nothing is kept for backward */
    void *workspace;
    void *stream;          /* the caller's; NULL: the default stream; ignored on CPU */
} moec_forward;

moec_status moec_layer_forward(moec_layer *layer, const moec_forward *call, moec_error *err);

typedef struct moec_backward {
    int64_t T;
    const void *x;         /* as given to forward */
    const float *logits;   /* as given to forward */
    moec_weights weights;
    const void *saved;     /* what forward wrote */
    const void *dout;      /* [T][H] */
    void *dx;              /* [T][H] */
    void *dw1, *db1, *dw2, *db2;            /* weight gradients; f32, or act with wgrad=same */
    void *dshared_w1, *dshared_w2;
    float *dlogits;        /* [T][E]; NULL when logits were not given */
    float *dweight;        /* [T][K]; may be NULL when logits were given */
    int accumulate;        /* 1: weight gradients are added to what is there */
    double aux_coef;       /* load-balance loss, see op route_bwd */
    double z_coef;         /* router z-loss */
    void *workspace;
    void *stream;
} moec_backward;

moec_status moec_layer_backward(moec_layer *layer, const moec_backward *call, moec_error *err);

/* What routing decided in the forward that wrote `saved`: device pointers into it. */
typedef struct moec_routing {
    const int32_t *expert, *offsets, *row_slot, *slot_row, *load; /* [T][K] [E+1] [R] [T*K] [E] */
    const float *weight, *prob_sum;                                /* [T][K] [E] */
    const double *z_sum;                                           /* [1] */
} moec_routing;

void moec_layer_routing(const moec_layer *layer, const void *saved, int64_t T, moec_routing *routing);

/* ---- what the library did so far, process-wide: flat in a warm training step ---- */

typedef struct moec_counters {
    uint64_t allocations;  /* host or device memory taken */
    uint64_t compiles;     /* compilers started */
    uint64_t files_opened;
    uint64_t launches;
} moec_counters;

void moec_counters_read(moec_counters *counters);

#ifdef __cplusplus
}
#endif
#endif
