/* The kernel cache: damage is found and repaired, many processes share one root, a killed builder
 * leaves nothing that others trip over, and a root that cannot be written is survived with a note. */
#include "t.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache.h"
#include "device.h"

static char root[64]; /* a fresh root for each case */
static const char key[] = "00112233445566778899aabbccddeeff";
static const char text[] = "what a compiler wrote: 0123456789\n";

static void fresh(void) {
    if (*root) moec_dir_remove(root);
    strcpy(root, "/tmp/moec-t-cache.XXXXXX");
    if (!mkdtemp(root)) root[0] = 0;
}

/* One build: notes itself in ROOT/builds, waits, writes the binary. */
typedef struct builder { int sleep_ms, fail, wipe; /* so many builds lose the whole cache under them */ } builder;

static moec_status build(void *user, const char *dir, moec_error *err) {
    builder *b = user;
    char path[MOEC_PATH_BYTES];
    snprintf(path, sizeof path, "%s/builds", root);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0 || write(fd, "x", 1) != 1) return moec_fail(err, MOEC_E_IO, "cannot note the build");
    close(fd);
    usleep((useconds_t)b->sleep_ms * 1000);
    if (b->wipe && b->wipe--) {
        snprintf(path, sizeof path, "%s/v1", root);
        moec_dir_remove(path);
        return moec_fail(err, MOEC_E_COMPILE, "no such file: k.c");
    }
    if (b->fail) return moec_fail(err, MOEC_E_COMPILE, "the compiler says no");
    snprintf(path, sizeof path, "%s/k.so", dir);
    return moec_file_write(path, text, sizeof text - 1, false, err);
}

static int builds(void) {
    char path[MOEC_PATH_BYTES], *data;
    size_t bytes;
    snprintf(path, sizeof path, "%s/builds", root);
    if (moec_file_read(path, &data, &bytes, NULL)) return 0;
    free(data);
    return (int)bytes;
}

static moec_status get_key(moec_cache *cache, const char *which, builder *b, char *path, moec_error *err) {
    moec_artifact a = {.key = which, .source_name = "k.c", .source = "source", .source_bytes = 6,
                       .binary = "k.so", .toolchain = "test", .build = build, .user = b};
    return moec_cache_get(cache, &a, path, err);
}

static moec_status get(moec_cache *cache, char *path, moec_error *err) {
    builder b = {0};
    return get_key(cache, key, &b, path, err);
}

/* Is the file at `path` what the builder wrote? */
static int sound(const char *path) {
    char *data;
    size_t bytes;
    if (moec_file_read(path, &data, &bytes, NULL)) return 0;
    int same = bytes == sizeof text - 1 && !memcmp(data, text, bytes);
    free(data);
    return same;
}

T_CASE(builds_once_then_finds) {
    moec_cache *cache;
    moec_error err = {0};
    char path[MOEC_PATH_BYTES], again[MOEC_PATH_BYTES];
    fresh();
    T_NEED(!moec_cache_open(root, &cache, &err));
    T_OK(!moec_cache_find(cache, key, path));
    T_EQ(get(cache, path, &err), MOEC_OK);
    T_OK(sound(path));
    T_EQ(get(cache, again, &err), MOEC_OK);
    T_STR(again, path);
    T_EQ(builds(), 1);
    T_STR(moec_cache_note(cache), "");
    moec_cache_close(cache);
}

/* Every byte of the binary flipped, every length cut: found each time. */
T_CASE(damaged_binaries_are_rebuilt) {
    moec_cache *cache;
    moec_error err = {0};
    char path[MOEC_PATH_BYTES], bad[sizeof text];
    fresh();
    T_NEED(!moec_cache_open(root, &cache, &err));
    T_NEED(!get(cache, path, &err));
    for (size_t i = 0; i < sizeof text - 1; i++) {
        memcpy(bad, text, sizeof text);
        bad[i] ^= 1;
        T_NEED(!moec_file_write(path, bad, sizeof text - 1, false, &err));
        T_OK(!moec_cache_find(cache, key, path));
        T_EQ(get(cache, path, &err), MOEC_OK);
        T_NEED(sound(path));
        T_NEED(!moec_file_write(path, text, i, false, &err));
        T_EQ(get(cache, path, &err), MOEC_OK);
        T_NEED(sound(path));
    }
    T_EQ(builds(), 1 + 2 * (int)(sizeof text - 1));
    moec_cache_close(cache);
}

T_CASE(damaged_manifests_are_rebuilt) {
    static const char outside[] = "format : moec module 1\nfile : ../../../../etc/passwd\nbytes : 1\n"
                                  "hash : 00112233445566778899aabbccddeeff\n";
    static const char *const bad[] = {"", "format : moec module 1\n", "\n\n\n", outside};
    moec_cache *cache;
    moec_error err = {0};
    char path[MOEC_PATH_BYTES], manifest[MOEC_PATH_BYTES];
    fresh();
    T_NEED(!moec_cache_open(root, &cache, &err));
    T_NEED(!get(cache, path, &err));
    snprintf(manifest, sizeof manifest, "%.*s/manifest", (int)(strrchr(path, '/') - path), path);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        T_NEED(!moec_file_write(manifest, bad[i], strlen(bad[i]), false, &err));
        T_EQ(get(cache, path, &err), MOEC_OK);
        T_OK(sound(path));
        T_EQ(builds(), 2 + (int)i);
    }
    unlink(path);
    T_EQ(get(cache, path, &err), MOEC_OK);
    T_OK(sound(path));
    moec_cache_close(cache);
}

/* 12 processes want the same 3 keys at once, one of them in a damaged entry. */
T_CASE(many_processes_build_each_key_once) {
    enum { PROCESSES = 12, KEYS = 3 };
    moec_cache *cache;
    moec_error err = {0};
    char path[MOEC_PATH_BYTES], keys[KEYS][33];
    pid_t pid[PROCESSES];
    fresh();
    for (int k = 0; k < KEYS; k++) snprintf(keys[k], 33, "%02x112233445566778899aabbccddeeff", k);
    T_NEED(!moec_cache_open(root, &cache, &err));
    builder quick = {0};
    T_NEED(!get_key(cache, keys[0], &quick, path, &err));
    T_NEED(!moec_file_write(path, "damaged", 7, false, &err));
    fflush(stdout);
    for (int p = 0; p < PROCESSES; p++) {
        pid[p] = fork();
        if (pid[p]) continue;
        moec_cache *mine;
        builder slow = {.sleep_ms = 20};
        int bad = moec_cache_open(root, &mine, NULL) != MOEC_OK;
        for (int k = 0; k < KEYS && !bad; k++)
            bad = get_key(mine, keys[(k + p) % KEYS], &slow, path, NULL) || !sound(path);
        _exit(bad);
    }
    for (int p = 0; p < PROCESSES; p++) {
        int status = -1;
        waitpid(pid[p], &status, 0);
        T_EQ(status, 0);
    }
    T_EQ(builds(), 1 + KEYS);
    moec_cache_close(cache);
}

T_CASE(a_killed_builder_blocks_nobody) {
    moec_cache *cache;
    moec_error err = {0};
    char path[MOEC_PATH_BYTES];
    fresh();
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        builder forever = {.sleep_ms = 60000};
        if (!moec_cache_open(root, &cache, NULL)) get_key(cache, key, &forever, path, NULL);
        _exit(0);
    }
    for (int i = 0; i < 500 && builds() == 0; i++) usleep(10000);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    T_EQ(builds(), 1);
    T_NEED(!moec_cache_open(root, &cache, &err));
    T_OK(!moec_cache_find(cache, key, path));
    T_EQ(get(cache, path, &err), MOEC_OK);
    T_OK(sound(path));
    moec_cache_close(cache);
}

T_CASE(what_killed_builders_left_goes_after_a_day) {
    static const struct { const char *name; bool old, stays; } rows[] = {
        {"build.dead01", true, false}, {"trash.dead02", true, false}, {"build.busy03", false, true}, {"failed", true, true},
    };
    char path[MOEC_PATH_BYTES], built[MOEC_PATH_BYTES];
    moec_error err = {0};
    moec_cache *cache;
    fresh();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct timespec ago[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
        snprintf(path, sizeof path, "%s/v1/%s", root, rows[i].name);
        T_NEED(!moec_dir_make(path, &err));
        if (rows[i].old) T_NEED(!utimensat(AT_FDCWD, path, ago, 0));
    }
    T_NEED(!moec_cache_open(root, &cache, &err));
    T_EQ(get(cache, built, &err), MOEC_OK); /* whoever builds sweeps */
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(path, sizeof path, "%s/v1/%s", root, rows[i].name);
        if (rows[i].stays != !access(path, F_OK)) T_FAIL("%s", rows[i].name);
    }
    moec_cache_close(cache);
}

T_CASE(rejected_sources_are_kept_and_named) {
    moec_cache *cache;
    moec_error err = {0};
    char path[MOEC_PATH_BYTES], kept[MOEC_PATH_BYTES];
    builder no = {.fail = 1};
    fresh();
    T_NEED(!moec_cache_open(root, &cache, &err));
    T_EQ(get_key(cache, key, &no, path, &err), MOEC_E_COMPILE);
    snprintf(kept, sizeof kept, "%s/v1/failed/%s/k.c", root, key);
    T_HAS(err.text, "the compiler says no");
    T_HAS(err.text, kept);
    T_OK(!access(kept, R_OK));
    T_EQ(get(cache, path, &err), MOEC_OK); /* a failure is not remembered */
    moec_cache_close(cache);
}

/* The root's parent is a file: nothing can be made there, also not by root. */
T_CASE(an_unusable_root_falls_back_with_a_note) {
    moec_cache *cache;
    moec_error err = {0};
    char blocked[MOEC_PATH_BYTES], path[MOEC_PATH_BYTES];
    fresh();
    snprintf(blocked, sizeof blocked, "%s/file", root);
    T_NEED(!moec_file_write(blocked, "x", 1, false, &err));
    T_NEED(!moec_cache_open(blocked, &cache, &err));
    T_HAS(moec_cache_note(cache), blocked);
    T_HAS(moec_cache_note(cache), "MOEC_CACHE");
    T_EQ(get(cache, path, &err), MOEC_OK);
    T_OK(sound(path));
    moec_cache_close(cache);
    T_OK(access(path, F_OK)); /* the private directory went with the cache object */
}

/* No room for a single byte: the error says so, nothing is left behind, and the next try works. */
/* Deleted between two kernels, and while one is built: made again. Always deleted: an error, not for ever. */
T_CASE(the_folder_may_be_deleted_at_any_time) {
    moec_cache *cache;
    moec_error err = {0};
    char path[MOEC_PATH_BYTES], v1[80];
    builder twice = {.wipe = 2}, ever = {.wipe = 100};
    fresh();
    snprintf(v1, sizeof v1, "%s/v1", root);
    T_NEED(!moec_cache_open(root, &cache, &err));
    T_EQ(get(cache, path, &err), MOEC_OK);
    moec_dir_remove(v1);
    T_EQ(get(cache, path, &err), MOEC_OK);
    T_OK(sound(path));
    moec_dir_remove(v1);
    T_EQ(get_key(cache, key, &twice, path, &err), MOEC_OK);
    T_OK(sound(path));
    moec_dir_remove(v1);
    T_EQ(get_key(cache, key, &ever, path, &err), MOEC_E_COMPILE);
    T_HAS(err.text, "no such file");
    moec_cache_close(cache);
}

T_CASE(a_full_disk_is_an_error_and_no_more) {
    moec_cache *cache;
    moec_error err = {0};
    char path[MOEC_PATH_BYTES];
    fresh();
    T_NEED(!moec_cache_open(root, &cache, &err));
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        struct rlimit none = {0, 0};
        signal(SIGXFSZ, SIG_IGN); /* writes fail with EFBIG, as they would with ENOSPC */
        if (setrlimit(RLIMIT_FSIZE, &none)) _exit(9);
        if (get(cache, path, &err) != MOEC_E_IO) _exit(1);
        _exit(strstr(err.text, root) && strstr(err.text, "too large") && strstr(err.text, "MOEC_CACHE") ? 0 : 2);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    T_EQ(WEXITSTATUS(status), 0);
    T_OK(!moec_cache_find(cache, key, path));
    snprintf(path, sizeof path, "ls %s/v1 | grep -q build", root);
    T_OK(system(path) != 0);
    T_EQ(get(cache, path, &err), MOEC_OK);
    moec_cache_close(cache);
}

/* Entries of a root that became read-only are still used. Root may write anywhere, so ask a child
 * that gave up its rights. */
T_CASE(a_read_only_root_is_still_read) {
    moec_cache *cache;
    moec_error err = {0};
    char path[MOEC_PATH_BYTES];
    fresh();
    T_NEED(!moec_cache_open(root, &cache, &err));
    T_NEED(!get(cache, path, &err));
    moec_cache_close(cache);
    snprintf(path, sizeof path, "chmod -R a+rX,a-w %s && rm -f %s/builds", root, root);
    T_NEED(!system(path));
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        if (getuid() == 0 && (setgid(65534) || setuid(65534))) _exit(9);
        if (moec_cache_open(root, &cache, &err)) _exit(1);
        if (!strstr(moec_cache_note(cache), "cannot be written")) _exit(2);
        if (!moec_cache_find(cache, key, path) || !sound(path)) _exit(3);
        if (strncmp(path, root, strlen(root))) _exit(4);
        moec_cache_close(cache);
        _exit(0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    T_EQ(WEXITSTATUS(status), 0);
    snprintf(path, sizeof path, "chmod -R u+w %s", root);
    T_EQ(system(path), 0);
    moec_dir_remove(root);
}

/* What loads but cannot be used is taken out by the caller. */
T_CASE(evicted_entries_are_rebuilt) {
    moec_cache *cache;
    moec_error err = {0};
    char path[MOEC_PATH_BYTES];
    fresh();
    T_NEED(!moec_cache_open(root, &cache, &err));
    T_NEED(!get(cache, path, &err));
    moec_cache_evict(cache, key);
    T_OK(!moec_cache_find(cache, key, path));
    T_EQ(get(cache, path, &err), MOEC_OK);
    T_EQ(builds(), 2);
    moec_cache_close(cache);
    moec_dir_remove(root);
}

T_MAIN
