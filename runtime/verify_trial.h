/* verify_trial: runs one case on a device and judges the answer.
 *
 * Every buffer lies between guard zones full of NaN; outputs and dead rows start as NaN too. After the
 * run nothing but the outputs may have changed, every output element must be within the oracle's
 * bound, and a second run with another number of threads must give the same bytes. */
#ifndef MOEC_VERIFY_TRIAL_H
#define MOEC_VERIFY_TRIAL_H

#include "device.h"
#include "verify_case.h"

typedef struct moec_verdict {
    double worst;      /* largest |error| / bound seen: at most 1 when right */
    double error;      /* ... and that |error| */
    char where[64];    /* ... "dhpre[3,17]" */
    char fault[512];   /* "" when right; else what is wrong, in a sentence */
    double apart;      /* from another target's answer: largest distance / both bounds (verify_results.h) */
    /* Called for each element that is judged, when not NULL; survives moec_trial's fresh start. */
    void (*take)(void *user, const char *name, int64_t i, double got, double bound);
    void *user;
} moec_verdict;

/* `verdict` starts as {0}, or with `take` set. A status says that the device failed; a wrong result is in the verdict. */
moec_status moec_trial(moec_device *device, const moec_module *module, const moec_case *c,
                       moec_verdict *verdict, moec_error *err);

/* Element-wise comparison, also used for whole layers: adds to verdict. `name` for messages, `columns`
 * elements a row of the printed index. e NULL: integers, exact. */
void moec_judge(moec_verdict *verdict, const char *name, int64_t columns, int64_t i, double got,
                double want, double bound);

#endif
