/* fs: the few file operations of the runtime, each complete or failed with a message.
 *
 * Every open goes through the counter of opened files. Paths are NUL-ended and shorter than
 * MOEC_PATH_BYTES; a longer one is an error, never a truncation. */
#ifndef MOEC_FS_H
#define MOEC_FS_H

#include <stdbool.h>
#include <stddef.h>

#include "../gen/status.h"

enum { MOEC_PATH_BYTES = 4096 };

/* Formats a path into path[MOEC_PATH_BYTES]. */
moec_status moec_path(char *path, moec_error *err, const char *format, ...) MOEC_PRINTF(3, 4);
/* Whole file into a malloc'ed, NUL-ended buffer. */
moec_status moec_file_read(const char *path, char **data, size_t *bytes, moec_error *err);
/* Writes a new or truncated file and flushes it to the disk when `sync`. */
moec_status moec_file_write(const char *path, const void *data, size_t bytes, bool sync,
                            moec_error *err);
/* Like moec_file_write, but readers see the old file or the whole new one, never a part. */
moec_status moec_file_replace(const char *path, const void *data, size_t bytes, moec_error *err);
/* Flushes a directory's entries (after a rename). Silent where the file system cannot. */
void moec_dir_sync(const char *path);
/* mkdir -p with mode 0700 for what is missing. */
moec_status moec_dir_make(const char *path, moec_error *err);
/* A new private directory "PARENT/PREFIX.XXXXXX" (0700) into path[MOEC_PATH_BYTES]. */
moec_status moec_dir_temp(const char *parent, const char *prefix, char *path, moec_error *err);
/* Removes a directory with everything in it; missing is fine. Never follows links. */
void moec_dir_remove(const char *path);
/* Can this process create files there? */
bool moec_dir_writable(const char *path);

#endif
