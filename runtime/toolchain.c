/* The toolchain table: one row per family of targets. */
#include "toolchain.h"

#include <stdlib.h>
#include <string.h>

#include "setting.h"

static const moec_toolchain *const rows[] = {
    &moec_cc_toolchain,
    &moec_nvrtc_toolchain,
    &moec_hip_toolchain,
};

const moec_toolchain *moec_toolchain_find(const char *family) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i]->family, family)) return rows[i];
    return NULL;
}

double moec_compile_limit_s(void) {
    const char *text = moec_setting("MOEC_COMPILE_TIMEOUT");
    double limit = text ? atof(text) : 0;
    return limit > 0 ? limit : 120;
}
