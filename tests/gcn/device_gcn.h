/* What the interpreting device has run: device->state points at it. */
#ifndef DEVICE_GCN_H
#define DEVICE_GCN_H

#include <stdint.h>

typedef struct gcn_machine {
    uint64_t instructions, mfma;       /* of waves, executed */
    uint64_t lds_clocks, lds_least;    /* as gcn_result has them */
    uint64_t launches;
    const struct gcn_trace *trace;     /* given to each run; NULL for none */
} gcn_machine;

#endif
