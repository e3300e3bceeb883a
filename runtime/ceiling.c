/* The table of ceilings: one row per family; and the copy that every device can do. */
#include "ceiling.h"

#include <string.h>
#include <time.h>

static const moec_ceiling_ops *const rows[] = {
    &moec_cpu_ceiling,
    &moec_cuda_ceiling,
};

const moec_ceiling_ops *moec_ceiling_find(const char *family) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i]->family, family)) return rows[i];
    return NULL;
}

static clockid_t measuring_clock = CLOCK_MONOTONIC;

void moec_seconds_of_thread(bool own) {
    measuring_clock = own ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
}

double moec_seconds(void) {
    struct timespec t;
    clock_gettime(measuring_clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static moec_status time_copies(moec_device *device, void *to, void *from, size_t bytes, double *rate,
                               moec_error *err) {
    enum { TIMES = 4, TRIES = 4 };
    for (int i = 0; i < TRIES; i++) { /* the best: a ceiling; the first also warms up */
        double start = moec_seconds();
        for (int k = 0; k < TIMES; k++) MOEC_TRY(moec_device_copy(device, NULL, to, from, bytes, err));
        MOEC_TRY(moec_synchronize(device, NULL, err));
        double now = 2.0 * TIMES * (double)bytes / (moec_seconds() - start);
        if (now > *rate) *rate = now;
    }
    return MOEC_OK;
}

moec_status moec_ceiling_plain_copy(moec_device *device, double *rate, moec_error *err) {
    const size_t bytes = (size_t)256 << 20;
    void *from = NULL, *to = NULL;
    *rate = 0;
    moec_status rc = moec_alloc(device, bytes, "the copy ceiling", &from, err);
    if (!rc) rc = moec_alloc(device, bytes, "the copy ceiling", &to, err);
    if (!rc) rc = time_copies(device, to, from, bytes, rate, err);
    moec_free(device, from);
    moec_free(device, to);
    return rc;
}

moec_status moec_ceiling_copy(moec_device *device, double *bytes, moec_error *err) {
    const moec_ceiling_ops *ops = moec_ceiling_find(device->target->family);
    return ops && ops->copy ? ops->copy(device, bytes, err) : moec_ceiling_plain_copy(device, bytes, err);
}
