/* The kernel cache: see cache.h for layout and promises.
 *
 * Publication: build in a private directory, write the manifest last, flush, rename the directory
 * to its final name. Rename of a directory is atomic and refuses a name that is taken by a
 * non-empty one: then another process was faster, and its entry is used if intact. */
#include "cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "setting.h"

enum { NOTE_BYTES = 1024 };

struct moec_cache {
    char root[MOEC_PATH_BYTES];   /* where entries are looked for */
    char write[MOEC_PATH_BYTES];  /* where new ones go: the root, or a private directory */
    bool private_write;
    char note[NOTE_BYTES];
};

/* ---- opening ---- */

static moec_status choose_root(const char *dir, char *root, moec_error *err) {
    const char *moec = moec_setting("MOEC_CACHE"), *xdg = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    if (dir && *dir) return moec_path(root, err, "%s/v1", dir);
    if (moec) return moec_path(root, err, "%s/v1", moec);
    if (xdg && *xdg) return moec_path(root, err, "%s/moec/v1", xdg);
    if (home && *home) return moec_path(root, err, "%s/.cache/moec/v1", home);
    return moec_path(root, err, "/nonexistent/moec/v1");
}

static const char *temp_parent(void) {
    const char *dir = getenv("TMPDIR");
    return dir && *dir ? dir : "/tmp";
}

/* The root cannot be written: a private directory takes what is compiled now. */
static moec_status fall_back(moec_cache *cache, const moec_error *why, moec_error *err) {
    moec_status rc = moec_dir_temp(temp_parent(), "moec-cache", cache->write, err);
    if (rc) {
        moec_context(err, rc, "the kernel cache %s cannot be written, and no private directory "
                     "can be made", cache->root);
        return moec_hint(err, rc, "set MOEC_CACHE to a directory that you may write");
    }
    cache->private_write = true;
    snprintf(cache->note, sizeof cache->note,
             "the kernel cache %.500s cannot be written (%.300s); kernels compiled now are lost at "
             "exit. "
             "Set MOEC_CACHE to a directory that you may write",
             cache->root, why->text);
    for (char *c = cache->note; *c; c++)
        if (*c == '\n') *c = ' ';
    return MOEC_OK;
}

/* Folders in the making, or on their way out, of processes that were killed: a day old, nobody works on them.
 * Looked for where a kernel is about to be built, which takes seconds anyhow; opening a full cache does not. */
static void sweep(const char *root) {
    DIR *d = opendir(root);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[MOEC_PATH_BYTES];
        struct stat st;
        if (strncmp(e->d_name, "build.", 6) && strncmp(e->d_name, "trash.", 6)) continue;
        if (moec_path(path, NULL, "%s/%s", root, e->d_name) || stat(path, &st)) continue;
        if (time(NULL) - st.st_mtime > 24 * 60 * 60) moec_dir_remove(path);
    }
    if (d) closedir(d);
}

static moec_status make_root(const char *root, moec_error *err) {
    char lock[MOEC_PATH_BYTES];
    MOEC_TRY(moec_path(lock, err, "%s/lock", root));
    MOEC_TRY(moec_dir_make(lock, err));
    if (moec_dir_writable(root)) return MOEC_OK;
    return moec_fail(err, MOEC_E_IO, "no permission to create files in %s", root);
}

moec_status moec_cache_open(const char *dir, moec_cache **out, moec_error *err) {
    moec_error why = {0};
    *out = NULL;
    moec_cache *cache = calloc(1, sizeof *cache);
    if (!cache) return moec_fail(err, MOEC_E_NOMEM, "out of memory: kernel cache");
    moec_status rc = choose_root(dir, cache->root, err);
    if (!rc && make_root(cache->root, &why)) rc = fall_back(cache, &why, err);
    else if (!rc) memcpy(cache->write, cache->root, sizeof cache->write);
    if (!rc && cache->private_write) {
        char lock[MOEC_PATH_BYTES];
        rc = moec_path(lock, err, "%s/lock", cache->write);
        if (!rc) rc = moec_dir_make(lock, err);
    }
    if (rc) moec_cache_close(cache);
    else *out = cache;
    return rc;
}

void moec_cache_close(moec_cache *cache) {
    if (!cache) return;
    if (cache->private_write) moec_dir_remove(cache->write);
    free(cache);
}

const char *moec_cache_root(const moec_cache *cache) { return cache->root; }
const char *moec_cache_note(const moec_cache *cache) { return cache->note; }

/* ---- entries ---- */

typedef struct manifest { char file[512]; size_t bytes; char hash[33]; } manifest;

static bool read_manifest(const char *text, manifest *m) {
    int ends = 0;
    unsigned long long bytes = 0;
    if (sscanf(text, "format : moec module 1\nfile : %511s\nbytes : %llu\nhash : %32s\n%n", m->file,
               &bytes, m->hash, &ends) != 3 || !ends) return false;
    m->bytes = (size_t)bytes;
    return strlen(m->hash) == 32 && !strchr(m->file, '/');
}

/* Does the entry at `dir` hold what its manifest says? */
static bool intact(const char *dir, char *path) {
    char name[MOEC_PATH_BYTES], hash[33], *text, *binary;
    size_t bytes;
    manifest m;
    if (moec_path(name, NULL, "%s/manifest", dir)) return false;
    if (moec_file_read(name, &text, &bytes, NULL)) return false;
    bool good = read_manifest(text, &m);
    free(text);
    if (!good || moec_path(path, NULL, "%s/%s", dir, m.file)) return false;
    if (moec_file_read(path, &binary, &bytes, NULL)) return false;
    moec_hash_hex(binary, bytes, hash);
    free(binary);
    return bytes == m.bytes && !strcmp(hash, m.hash);
}

static moec_status entry_dir(const char *root, const char *key, char *dir, moec_error *err) {
    return moec_path(dir, err, "%s/%.2s/%s", root, key, key);
}

/* Moves a damaged entry out of the way first, so that nobody sees it half removed. */
static void remove_entry(const char *root, const char *dir) {
    char trash[MOEC_PATH_BYTES];
    if (moec_dir_temp(root, "trash", trash, NULL)) return;
    if (rename(dir, trash) && errno != ENOENT) moec_dir_remove(dir);
    moec_dir_remove(trash);
}

static bool find_in(const char *root, const char *key, char *path) {
    char dir[MOEC_PATH_BYTES];
    return !entry_dir(root, key, dir, NULL) && !access(dir, F_OK) && intact(dir, path);
}

bool moec_cache_find(moec_cache *cache, const char *key, char *path) {
    if (find_in(cache->root, key, path)) return true;
    return cache->private_write && find_in(cache->write, key, path);
}

/* ---- building ---- */

/* One builder of a key at a time. Without locks (some network file systems) two may build the same
 * key, which costs time and nothing else: -1. */
static int lock_key(const moec_cache *cache, const char *key) {
    char path[MOEC_PATH_BYTES];
    if (moec_path(path, NULL, "%s/lock/%.2s", cache->write, key)) return -1;
    moec_count(MOEC_COUNT_FILE);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    while (fd >= 0 && flock(fd, LOCK_EX)) {
        if (errno == EINTR) continue;
        close(fd);
        return -1;
    }
    return fd;
}

static moec_status write_source(const moec_artifact *a, const char *dir, moec_error *err) {
    char path[MOEC_PATH_BYTES];
    MOEC_TRY(moec_path(path, err, "%s/%s", dir, a->source_name));
    return moec_file_write(path, a->source, a->source_bytes, false, err);
}

static moec_status flush_file(const char *path, moec_error *err) {
    moec_count(MOEC_COUNT_FILE);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd)) {
        moec_status rc = moec_fail(err, MOEC_E_IO, "cannot flush %s: %s", path, strerror(errno));
        if (fd >= 0) close(fd);
        return rc;
    }
    close(fd);
    return MOEC_OK;
}

static moec_status write_manifest(const moec_artifact *a, const char *dir, moec_error *err) {
    char path[MOEC_PATH_BYTES], text[4096], hash[33], *binary;
    size_t bytes;
    MOEC_TRY(moec_path(path, err, "%s/%s", dir, a->binary));
    MOEC_TRY(moec_file_read(path, &binary, &bytes, err));
    moec_hash_hex(binary, bytes, hash);
    free(binary);
    MOEC_TRY(flush_file(path, err));
    int n = snprintf(text, sizeof text,
                     "format : moec module 1\nfile : %s\nbytes : %zu\nhash : %s\nsource : %s\n"
                     "toolchain : %s\n", a->binary, bytes, hash, a->source_name, a->toolchain);
    MOEC_TRY(moec_path(path, err, "%s/manifest", dir));
    return moec_file_write(path, text, (size_t)n, true, err);
}

/* Renames the built directory to its entry. Another's intact entry wins; a damaged one makes way.
 * Called with the key's lock, so that nobody takes a fresh entry for the damaged one. */
static moec_status publish(const moec_cache *cache, const moec_artifact *a, const char *built,
                           char *path, moec_error *err) {
    char dir[MOEC_PATH_BYTES], parent[MOEC_PATH_BYTES];
    MOEC_TRY(entry_dir(cache->write, a->key, dir, err));
    MOEC_TRY(moec_path(parent, err, "%s/%.2s", cache->write, a->key));
    MOEC_TRY(moec_dir_make(parent, err));
    moec_dir_sync(built);
    for (int attempt = 0; attempt < 8; attempt++) {
        if (!rename(built, dir)) {
            moec_dir_sync(parent);
            return moec_path(path, err, "%s/%s", dir, a->binary);
        }
        if (errno != EEXIST && errno != ENOTEMPTY)
            return moec_fail(err, MOEC_E_IO, "cannot publish %s: %s", dir, strerror(errno));
        if (intact(dir, path)) {
            moec_dir_remove(built);
            return MOEC_OK;
        }
        remove_entry(cache->write, dir);
    }
    return moec_fail(err, MOEC_E_IO, "cannot replace the damaged cache entry %s", dir);
}

/* Where rejected sources are kept: they outlive a private cache directory. */
static moec_status failed_dir(const moec_cache *cache, char *failed) {
    if (cache->private_write) return moec_dir_temp(temp_parent(), "moec-failed", failed, NULL);
    MOEC_TRY(moec_path(failed, NULL, "%s/failed", cache->write));
    return moec_dir_make(failed, NULL);
}

/* Keeps what a compiler rejected where the user can look at it, and says where. */
static void keep_failed(const moec_cache *cache, const moec_artifact *a, const char *built,
                        moec_status rc, moec_error *err) {
    char failed[MOEC_PATH_BYTES], dir[MOEC_PATH_BYTES];
    if (failed_dir(cache, failed) || moec_path(dir, NULL, "%s/%s", failed, a->key)) {
        moec_dir_remove(built);
        return;
    }
    moec_dir_remove(dir);
    if (rename(built, dir)) moec_dir_remove(built);
    else moec_hint(err, rc, "the emitted file is %s/%s", dir, a->source_name);
}

/* The cache may be deleted at any time, also since it was opened. */
static void make_again(const moec_cache *cache) {
    char lock[MOEC_PATH_BYTES];
    if (access(cache->write, F_OK) && !moec_path(lock, NULL, "%s/lock", cache->write)) (void)moec_dir_make(lock, NULL);
}

/* `gone`: the build failed because its folder was deleted. */
static moec_status build(moec_cache *cache, const moec_artifact *a, char *path, bool *gone, moec_error *err) {
    char dir[MOEC_PATH_BYTES];
    sweep(cache->write);
    MOEC_TRY(moec_dir_temp(cache->write, "build", dir, err));
    moec_status rc = write_source(a, dir, err);
    if (!rc) {
        rc = a->build(a->user, dir, err);
        *gone = rc && access(dir, F_OK);
        if (!*gone && (rc == MOEC_E_COMPILE || rc == MOEC_E_TIMEOUT)) {
            keep_failed(cache, a, dir, rc, err);
            return rc;
        }
    }
    if (!rc) rc = write_manifest(a, dir, err);
    if (!rc) rc = publish(cache, a, dir, path, err);
    if (rc) {
        *gone = access(dir, F_OK);
        moec_dir_remove(dir);
        moec_context(err, rc, "kernel cache %s", cache->write);
        if (rc == MOEC_E_IO) moec_hint(err, rc, "or let MOEC_CACHE name a folder on another disk");
    }
    return rc;
}

moec_status moec_cache_get(moec_cache *cache, const moec_artifact *a, char *path, moec_error *err) {
    moec_status rc = MOEC_OK;
    bool gone = true;
    for (int attempt = 0; attempt < 3 && gone; attempt++) {
        gone = false;
        if (moec_cache_find(cache, a->key, path)) return MOEC_OK;
        make_again(cache);
        int lock = lock_key(cache, a->key);
        rc = moec_cache_find(cache, a->key, path) ? MOEC_OK : build(cache, a, path, &gone, err);
        if (lock >= 0) close(lock);
    }
    return rc;
}

void moec_cache_evict(moec_cache *cache, const char *key) {
    char dir[MOEC_PATH_BYTES];
    int lock = lock_key(cache, key);
    if (!entry_dir(cache->write, key, dir, NULL)) remove_entry(cache->write, dir);
    if (lock >= 0) close(lock);
}

/* ---- doctor ---- */

static void add_usage(const char *dir, int depth, long *entries, long long *bytes) {
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        char path[MOEC_PATH_BYTES];
        struct stat st;
        if (e->d_name[0] == '.' || moec_path(path, NULL, "%s/%s", dir, e->d_name)) continue;
        if (lstat(path, &st)) continue;
        if (S_ISDIR(st.st_mode) && depth < 3) add_usage(path, depth + 1, entries, bytes);
        else *bytes += st.st_size;
        if (!strcmp(e->d_name, "manifest")) ++*entries;
    }
    closedir(d);
}

void moec_cache_usage(const moec_cache *cache, long *entries, long long *bytes) {
    *entries = 0;
    *bytes = 0;
    add_usage(cache->root, 0, entries, bytes);
}
