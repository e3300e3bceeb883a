/* routing: where the routing of one batch lies in a block of memory.
 *
 * Route writes it, every other op of the layer reads it, backward reuses it: it is the head of a
 * layer's `saved` block (or of the workspace in inference). All sizes follow from E, K and T; the
 * row capacity is R = T*K, of which offsets[E] are in use (fewer when capacity drops slots). */
#ifndef MOEC_ROUTING_H
#define MOEC_ROUTING_H

#include "device.h"

/* Fills `routing` with the addresses inside the block at `base` (NULL: sizes only) and returns the
 * block's bytes, a multiple of 256. */
size_t moec_routing_place(const moec_spec *spec, int64_t T, void *base, moec_routing *routing);

/* The most tokens of a batch: rows are numbered by int32. */
int64_t moec_routing_most_tokens(const moec_spec *spec);

#endif
