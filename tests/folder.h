/* A test's folder of scratch: there when something first asks for it, gone when the test ends. */
#ifndef MOEC_TESTS_FOLDER_H
#define MOEC_TESTS_FOLDER_H

#include "t.h"

#include <stdlib.h>
#include <unistd.h>

#include "fs.h"

static char dir[64]; /* the folder, once make_dir ran */

static inline void remove_dir(void) { moec_dir_remove(dir); }

static inline void make_dir(void) {
    if (*dir) return;
    strcpy(dir, "/tmp/moec-test.XXXXXX");
    if (!mkdtemp(dir)) abort();
    atexit(remove_dir);
}

/* Where a file of that name is in the folder; holds until the next call. */
static inline const char *in_dir(const char *name) {
    static char path[160];
    make_dir();
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

/* Writes the file of that name; false, and the case fails, where that cannot be. */
static inline bool put_file(const char *name, const void *data, size_t bytes) {
    FILE *f = fopen(in_dir(name), "wb");
    bool ok = f && fwrite(data, 1, bytes, f) == bytes;
    if (f && fclose(f)) ok = false;
    if (!ok) T_FAIL("cannot write %s", in_dir(name));
    return ok;
}

#endif
