/* layer: which kernels a MoE layer consists of, for everyone who lists them (create, gen, verify,
 * bench, tune). Running a layer is moec.h's interface; layer.c implements it. */
#ifndef MOEC_LAYER_H
#define MOEC_LAYER_H

#include "device.h"

/* One row per kernel of a layer, in the order in which forward and backward run them. */
typedef enum moec_layer_slot {
    MOEC_L_ROUTE, MOEC_L_SHARED_UP, MOEC_L_SHARED_DOWN, MOEC_L_UP, MOEC_L_DOWN, MOEC_L_COMBINE,
    MOEC_L_DH, MOEC_L_DW2, MOEC_L_DB2, MOEC_L_DW1, MOEC_L_DB1, MOEC_L_SHARED_DH, MOEC_L_SHARED_DW2,
    MOEC_L_SHARED_DW1, MOEC_L_SHARED_DX, MOEC_L_DX, MOEC_L_ROUTE_BWD, MOEC_L_COUNT
} moec_layer_slot;

typedef struct moec_layer_row {
    const char *name;   /* "up", "shared.up": unique, used by plans and reports */
    moec_op_id op;
    bool shared;        /* runs on the shared expert's spec */
    bool backward;
    bool bias;          /* exists only with bias=1 */
} moec_layer_row;

const moec_layer_row *moec_layer_row_at(moec_layer_slot slot);
/* Is there a row whose name is these `length` bytes? */
bool moec_layer_row_is(const char *name, size_t length);
/* Does a layer of this spec have the row? */
bool moec_layer_row_used(const moec_layer_row *row, const moec_spec *spec);
/* The spec of the row's kernel: the layer's, or for the shared expert E=1 K=1 F=shared, no bias. */
moec_spec moec_layer_row_spec(const moec_layer_row *row, const moec_spec *spec);

#endif
