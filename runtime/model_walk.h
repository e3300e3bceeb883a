/* model_walk: how long a lone block takes for one turn of a kernel's main loop, from its assembly text.
 *
 * The loop is walked instruction by instruction as one wave issues them, with a wave of the same block on each of
 * the other SIMDs at the same place. See model_walk.c for what each instruction is charged. */
#ifndef MOEC_MODEL_WALK_H
#define MOEC_MODEL_WALK_H

#include <stdbool.h>

typedef struct moec_walk {
    int matrix;             /* matrix instructions of a turn */
    double clocks, busy;    /* of a turn; those in which the matrix unit works */
} moec_walk;

/* Walks the loop with the most matrix instructions among those that are one block of code. `rate`: FLOP a clock
 * of a compute unit. False when there is no such loop. */
bool moec_walk_loop(const char *assembly, double rate, moec_walk *out);

#endif
