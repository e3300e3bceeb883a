/* Status codes and the error chain: the one way in which moec says that something failed.
 *
 * Every fallible call returns a moec_status and takes a `moec_error *` (may be NULL). The failing
 * function writes what, where and a hint; each caller on the way up may add one line of context.
 * Nothing here prints: the command line shows `text` and exits with moec_exit_code(). */
#ifndef MOEC_STATUS_H
#define MOEC_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum moec_status {
#define STATUS(name, exit_code, meaning) MOEC_##name,
#include "status.def"
#undef STATUS
    MOEC_STATUS_COUNT
} moec_status;

#define MOEC_ERROR_BYTES 4096

/* Caller-owned; zero-initialise before the first call. Valid until the next failing call on it. */
typedef struct moec_error {
    moec_status status;
    char text[MOEC_ERROR_BYTES]; /* lines, innermost last; a line "hint: ..." says what to do next */
} moec_error;

const char *moec_status_name(moec_status status);    /* "E_SPEC"; static */
const char *moec_status_meaning(moec_status status); /* one sentence; static */
int moec_exit_code(moec_status status);              /* what the command line exits with */

#if defined(__GNUC__)
#define MOEC_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define MOEC_PRINTF(f, a)
#endif

/* Starts a new chain with this message and returns `status`. `err` may be NULL. */
moec_status moec_fail(moec_error *err, moec_status status, const char *format, ...) MOEC_PRINTF(3, 4);

/* Puts one line of context before the chain and returns the chain's status. */
moec_status moec_context(moec_error *err, moec_status status, const char *format, ...)
    MOEC_PRINTF(3, 4);

/* Appends a line "hint: ..." and returns `status`. */
moec_status moec_hint(moec_error *err, moec_status status, const char *format, ...) MOEC_PRINTF(3, 4);

/* Returns from the calling function when `call` fails. Only where the function holds no resource. */
#define MOEC_TRY(call)                          \
    do {                                        \
        moec_status try_status_ = (call);       \
        if (try_status_) return try_status_;    \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
