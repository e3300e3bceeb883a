/* subprocess: runs a program to its end, without a shell, with a time limit. */
#ifndef MOEC_SUBPROCESS_H
#define MOEC_SUBPROCESS_H

#include <stddef.h>

#include "../gen/status.h"

typedef struct moec_process {
    const char *const *argv;  /* argv[0] is looked up in PATH; NULL-ended */
    const char *directory;    /* to run in; NULL: here */
    double limit_s;           /* then the whole process group is killed */
    char *output;             /* what it wrote to stdout and stderr, cut to output_bytes - 1 */
    size_t output_bytes;
    int exit_code;            /* 128 + signal when it was killed */
    double seconds;           /* how long it ran */
} moec_process;

/* OK when the program ran to an end, whatever its exit code. E_TOOL: it cannot be started.
 * E_TIMEOUT: killed at the limit. Any thread. */
moec_status moec_process_run(moec_process *process, moec_error *err);

/* Full path of `name` in PATH (or itself when it holds a '/'), into path[MOEC_PATH_BYTES]. */
int moec_program_find(const char *name, char *path);

#endif
