/* cache: compiled kernels on disk, by content.
 *
 * Layout under the root:
 *   v1/ab/KEY/         one entry: manifest, SYMBOL.c (what was compiled), SYMBOL.so
 *   v1/lock/ab         one builder of a key at a time (flock: a dead holder frees it)
 *   v1/build.XXXXXX/   being built; private, becomes an entry by one rename
 *   v1/failed/KEY/     what a compiler rejected: the source and log.txt
 * KEY = hash of the source text and of the toolchain's name, version and flags. The manifest holds
 * the binary's size and hash, so a truncated or damaged entry is found, removed and rebuilt.
 * Many processes share a root: readers see a whole entry or none.
 *
 * A root that cannot be written is still read; new entries go to a private temporary directory that
 * is removed with the cache object, and `note` says so. */
#ifndef MOEC_CACHE_H
#define MOEC_CACHE_H

#include "fs.h"

typedef struct moec_cache moec_cache;

/* Root: `dir` when given, else $MOEC_CACHE, else $XDG_CACHE_HOME/moec, else ~/.cache/moec. */
moec_status moec_cache_open(const char *dir, moec_cache **cache, moec_error *err);
void moec_cache_close(moec_cache *cache);
const char *moec_cache_root(const moec_cache *cache);
const char *moec_cache_note(const moec_cache *cache); /* "" when all is well */

/* One thing to build. `build` writes DIR/binary (and may leave other files there). */
typedef struct moec_artifact {
    const char *key;          /* 32 hex digits */
    const char *source_name;  /* "SYMBOL.c" */
    const char *source;
    size_t source_bytes;
    const char *binary;       /* "SYMBOL.so" */
    const char *toolchain;    /* for the manifest */
    moec_status (*build)(void *user, const char *dir, moec_error *err);
    void *user;
} moec_artifact;

/* Is there an intact entry? Its binary's path into path[MOEC_PATH_BYTES]. */
bool moec_cache_find(moec_cache *cache, const char *key, char *path);
/* Finds or builds, whichever process comes first. Any thread. */
moec_status moec_cache_get(moec_cache *cache, const moec_artifact *artifact, char *path,
                           moec_error *err);

/* Takes an entry out that is intact but of no use (it does not load). */
void moec_cache_evict(moec_cache *cache, const char *key);

/* Entries and bytes under the root, for doctor. */
void moec_cache_usage(const moec_cache *cache, long *entries, long long *bytes);

#endif
