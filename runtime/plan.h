/* plan: a small text file with a config for each kernel of a layer on one target.
 *
 *     moec plan 1
 *     target : cpu-avx512
 *     spec : E=64 K=6 H=2048 ...
 *     up : mr=6 nr=4
 *     shared.up : mr=8 nr=3
 *
 * Kernels that it does not name run with their defaults. Its hash is what ranks compare. */
#ifndef MOEC_PLAN_H
#define MOEC_PLAN_H

#include "layer.h"

typedef struct moec_plan {
    char *text;      /* whole file; NULL: no plan, every config is the default */
    char hash[33];   /* of the text */
} moec_plan;

/* Reads a plan and checks that it is for this spec and target. path NULL gives the empty plan. */
moec_status moec_plan_read(const char *path, const moec_spec *spec, const moec_target *target,
                           moec_plan *plan, moec_error *err);
void moec_plan_free(moec_plan *plan);
/* Does a plan begin at path? Its lines are not looked at. */
bool moec_plan_at(const char *path);
/* The config text of a kernel name into text[bytes]; false when the plan does not name it. */
bool moec_plan_find(const moec_plan *plan, const char *name, char *text, size_t bytes);

#endif
