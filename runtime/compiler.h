/* compiler: what toolchains that run a compiler as a subprocess share: finding one, asking its
 * version, running it in a directory, and telling the user what it said. */
#ifndef MOEC_COMPILER_H
#define MOEC_COMPILER_H

#include <stdbool.h>
#include <stddef.h>

#include "../gen/status.h"

enum { COMPILER_WORD_BYTES = 2048 };

/* The newest PREFIX-NN in PATH from `newest` down to `oldest`, then PREFIX itself, into command. */
bool compiler_newest(const char *prefix, int newest, int oldest, char *command, size_t bytes);

/* First line of "COMMAND --version". */
moec_status compiler_version(const char *command, char *version, size_t bytes, moec_error *err);

/* Runs "COMMAND -o BINARY SOURCE" (command may hold flags, split at spaces) inside `dir`, under the
 * time limit. What the compiler said goes to the error, and to DIR/log.txt in full. */
moec_status compiler_run(const char *command, const char *dir, const char *source,
                         const char *binary, moec_error *err);

#endif
