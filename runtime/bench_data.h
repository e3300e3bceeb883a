/* bench_data: device buffers of a benchmark by argument name, and the arguments of an op. */
#ifndef MOEC_BENCH_DATA_H
#define MOEC_BENCH_DATA_H

#include "bench.h"

typedef struct bench_buffer {
    char name[24];
    void *at[8];      /* sets; one unless it holds weights */
    int sets;
    size_t bytes;     /* of one set */
} bench_buffer;

enum { BENCH_BUFFERS = 96, BENCH_MOST_SETS = 8 };

typedef struct bench_data {
    moec_device *device;
    const moec_spec *spec;
    const moec_bench_options *options;
    int64_t T, R;              /* tokens, room for routed rows */
    int32_t *offsets;          /* [E + 1] on the host, after routing */
    bench_buffer buffers[BENCH_BUFFERS];
    int count;
    void *noise;               /* host: random values to fill buffers from */
} bench_data;

moec_status bench_data_open(bench_data *d, moec_error *err);
void bench_data_close(bench_data *d);

/* A buffer of at least `bytes`, filled with random values of `type`. sets 0: chosen so that all
 * together pass the caches. */
moec_status bench_buffer_get(bench_data *d, const char *name, moec_arg_type type, size_t bytes, int sets,
                             bench_buffer **buffer, moec_error *err);

/* Arguments of `op` for run number `turn`: weights come from set turn mod sets. dense: no routing. */
moec_status bench_args(bench_data *d, const moec_op *op, const moec_spec *spec, bool dense, int turn,
                       moec_arg *args, moec_error *err);

/* Runs op route once: offsets, row_slot and slot_row of the batch. */
moec_status bench_route(bench_data *d, moec_error *err);

moec_sizes bench_sizes(const bench_data *d, const moec_spec *spec, bool dense);
/* Tokens of a sequence for ops that have sequences. */
int64_t bench_sequence(const bench_data *d);

#endif
