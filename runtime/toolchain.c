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

moec_status moec_compile_limit(double *seconds, moec_error *err) {
    const char *text = moec_setting("MOEC_COMPILE_TIMEOUT");
    char *end = NULL;
    *seconds = text ? strtod(text, &end) : 120;
    if (!text || (end > text && !*end && *seconds > 0 && *seconds < 1e9)) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_INVAL, "MOEC_COMPILE_TIMEOUT=%s is no number of seconds", text);
    return moec_hint(err, rc, "name one above 0, or unset it: compilers then have 120");
}
