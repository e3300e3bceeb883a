/* bench: times of kernels and of the whole layer beside ceilings and peers measured in the same run.
 *
 * Written for any family of devices. Weights are cold: several sets of them are used in turn, as in
 * training, where a layer's weights have left the caches before they come round again. What is
 * compared is interleaved run by run, and the figure is the median. */
#ifndef MOEC_BENCH_H
#define MOEC_BENCH_H

#include "layer.h"
#include "peer.h"

enum { MOEC_BENCH_ROWS = 48, MOEC_BENCH_PEERS = 4 };

typedef struct moec_bench_options {
    int64_t tokens;
    const char *routing;   /* pattern.h */
    uint64_t seed;
    int repeat;            /* timed runs of each, at most; slow ones get fewer */
    int sets;              /* sets of weights used in turn; 0: enough to pass the caches */
    const char *ops;       /* names of layer rows or ops separated by commas, "layer" for the whole
                            * layer; NULL: every row of the layer, then the layer */
    bool peers;
    bool cpu_time;         /* seconds that the one worker ran, not that passed: for a shared machine */
    int column_blocks;     /* of the layer */
    const char *plan;      /* configs of kernels; NULL: defaults */
    void (*progress)(void *user, const char *now); /* before each row; may be NULL */
    void *user;
} moec_bench_options;

typedef struct moec_bench_row {
    char name[24], target[32], config[160];
    int runs;
    double ms, low_ms, high_ms;     /* median, first and ninth decile */
    double flops, bytes;            /* of this batch: experts' real rows, every byte once */
    double peak;                    /* FLOP/s of the compute ceiling beside it; 0: not measured */
    double bound_ms;                /* the greater of flops/peak and bytes/copy; 0: no ceilings */
    double peer_ms[MOEC_BENCH_PEERS]; /* 0: not compared */
} moec_bench_row;

typedef struct moec_bench_layer {
    bool measured;
    bool difference;            /* backward is both passes less forward; else timed alone */
    double forward_ms, backward_ms;
    double given_forward_ms, given_backward_ms; /* experts and weights given: without the router */
    double gemm_flops;          /* of forward's products; backward's are twice as many */
    double flops, kernels_ms, bound_ms; /* sums over the kernels of both passes */
    size_t saved_bytes, workspace_bytes;
} moec_bench_layer;

typedef struct moec_bench {
    char unit[64];                  /* what the compute ceiling measured; "": none */
    char no_unit[160];              /* why not; "": no such ceiling for this family */
    double copy;                    /* bytes/s; 0: not measured */
    int64_t rows, most_rows, experts_used; /* routed rows, of the fullest expert, experts with rows */
    int sets;                       /* of the largest weights */
    const moec_peer *peer[MOEC_BENCH_PEERS]; /* NULL past the end */
    char peer_note[MOEC_BENCH_PEERS][160];   /* version, or why it is missing */
    bool peer_there[MOEC_BENCH_PEERS];
    int count;
    moec_bench_row row[MOEC_BENCH_ROWS];
    moec_bench_layer layer;
} moec_bench;

/* options->cpu_time goes with one worker of a CPU target. */
moec_status moec_bench_check_cpu_time(const moec_device *device, const moec_bench_options *options, moec_error *err);
/* Is `name` in a list separated by commas? */
bool moec_bench_asked(const char *list, const char *name);

/* Fills `bench`. Takes memory for the layer's data and for `sets` sets of weights. */
moec_status moec_bench_run(moec_device *device, const moec_spec *spec,
                           const moec_bench_options *options, moec_bench *bench, moec_error *err);

#endif
