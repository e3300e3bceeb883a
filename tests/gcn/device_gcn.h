/* What the interpreting device has run: device->state points at it. */
#ifndef DEVICE_GCN_H
#define DEVICE_GCN_H

#include <stdint.h>

typedef struct gcn_machine {
    uint64_t instructions, mfma;       /* of waves, executed */
    uint64_t lds_clocks, lds_least;    /* as gcn_result has them */
} gcn_machine;

#endif
