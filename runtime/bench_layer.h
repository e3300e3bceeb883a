/* bench_layer: the whole layer, forward and backward, as a program that links libmoec runs it. */
#ifndef MOEC_BENCH_LAYER_H
#define MOEC_BENCH_LAYER_H

#include "bench_data.h"
#include "plan.h"
#include "routing.h"

/* Fills bench->layer; its bound adds up the rows timed before (all of them must be there). */
moec_status bench_layer(bench_data *d, moec_bench *bench, moec_error *err);

#endif
