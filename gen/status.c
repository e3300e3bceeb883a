/* Status names and the error chain. Plain text in a caller's buffer: no allocation, no globals. */
#include "status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct { const char *name, *meaning; int exit_code; } rows[] = {
#define STATUS(name, exit_code, meaning) {#name, meaning, exit_code},
#include "status.def"
#undef STATUS
};

static int in_range(moec_status status) {
    return (int)status >= 0 && status < MOEC_STATUS_COUNT;
}

const char *moec_status_name(moec_status status) {
    return in_range(status) ? rows[status].name : "unknown";
}

const char *moec_status_meaning(moec_status status) {
    return in_range(status) ? rows[status].meaning : "unknown status";
}

int moec_exit_code(moec_status status) {
    return in_range(status) ? rows[status].exit_code : 1;
}

/* Replaces the chain. The message is formatted aside: its arguments may point into err->text. */
moec_status moec_fail(moec_error *err, moec_status status, const char *format, ...) {
    if (!err) return status;
    char line[MOEC_ERROR_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    err->status = status;
    memcpy(err->text, line, sizeof line);
    return status;
}

moec_status moec_context(moec_error *err, moec_status status, const char *format, ...) {
    if (!err) return status;
    char chain[MOEC_ERROR_BYTES];
    va_list args;
    va_start(args, format);
    int used = vsnprintf(chain, sizeof chain, format, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof chain)
        snprintf(chain + used, sizeof chain - (size_t)used, "\n%.*s",
                 (int)(sizeof chain - (size_t)used - 2), err->text);
    memcpy(err->text, chain, sizeof chain);
    return status;
}

moec_status moec_hint(moec_error *err, moec_status status, const char *format, ...) {
    if (!err) return status;
    size_t used = strlen(err->text);
    if (used + 8 >= sizeof err->text) return status;
    int label = snprintf(err->text + used, sizeof err->text - used, "\nhint: ");
    va_list args;
    va_start(args, format);
    vsnprintf(err->text + used + label, sizeof err->text - used - (size_t)label, format, args);
    va_end(args);
    return status;
}
