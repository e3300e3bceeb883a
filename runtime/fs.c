/* File operations: see fs.h. POSIX calls with EINTR and short writes handled in one place. */
#include "fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"

moec_status moec_path(char *path, moec_error *err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(path, MOEC_PATH_BYTES, format, args);
    va_end(args);
    if (n >= 0 && n < MOEC_PATH_BYTES) return MOEC_OK;
    return moec_fail(err, MOEC_E_IO, "path is longer than %d bytes: %.200s...", MOEC_PATH_BYTES,
                     path);
}

static moec_status io_error(moec_error *err, const char *what, const char *path) {
    int code = errno;
    moec_status rc = moec_fail(err, MOEC_E_IO, "%s %s: %s", what, path, strerror(code));
    if (code == ENOSPC || code == EDQUOT || code == EFBIG)
        return moec_hint(err, rc, "free some space on that disk (or raise the quota, or `ulimit -f`), then run the same "
                                  "command again");
    if (code == EACCES || code == EROFS || code == EPERM)
        return moec_hint(err, rc, "choose a directory that you may write, or fix its permissions");
    return rc;
}

static moec_status open_file(const char *path, int flags, int *fd, moec_error *err) {
    moec_count(MOEC_COUNT_FILE);
    do *fd = open(path, flags | O_CLOEXEC, 0666);
    while (*fd < 0 && errno == EINTR);
    return *fd < 0 ? io_error(err, "cannot open", path) : MOEC_OK;
}

static moec_status read_all(int fd, const char *path, char *data, size_t bytes, moec_error *err) {
    for (size_t done = 0; done < bytes;) {
        ssize_t n = read(fd, data + done, bytes - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return io_error(err, "cannot read", path);
        if (n == 0) return moec_fail(err, MOEC_E_IO, "%s became shorter while it was read", path);
        done += (size_t)n;
    }
    return MOEC_OK;
}

moec_status moec_file_read(const char *path, char **data, size_t *bytes, moec_error *err) {
    int fd;
    struct stat st;
    MOEC_TRY(open_file(path, O_RDONLY, &fd, err));
    moec_status rc = MOEC_OK;
    *data = NULL;
    if (fstat(fd, &st)) rc = io_error(err, "cannot stat", path);
    else if (!S_ISREG(st.st_mode)) rc = moec_fail(err, MOEC_E_IO, "%s is not a regular file", path);
    else if (!(*data = malloc((size_t)st.st_size + 1)))
        rc = moec_fail(err, MOEC_E_NOMEM, "out of memory: %lld bytes to read %s",
                       (long long)st.st_size, path);
    if (!rc) rc = read_all(fd, path, *data, *bytes = (size_t)st.st_size, err);
    close(fd);
    if (!rc) {
        (*data)[*bytes] = 0;
        return MOEC_OK;
    }
    free(*data);
    *data = NULL;
    return rc;
}

static moec_status write_all(int fd, const char *path, const char *data, size_t bytes,
                             moec_error *err) {
    for (size_t done = 0; done < bytes;) {
        ssize_t n = write(fd, data + done, bytes - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return io_error(err, "cannot write", path);
        done += (size_t)n;
    }
    return MOEC_OK;
}

moec_status moec_file_write(const char *path, const void *data, size_t bytes, bool sync,
                            moec_error *err) {
    int fd;
    MOEC_TRY(open_file(path, O_WRONLY | O_CREAT | O_TRUNC, &fd, err));
    moec_status rc = write_all(fd, path, data, bytes, err);
    if (!rc && sync && fsync(fd)) rc = io_error(err, "cannot flush", path);
    if (close(fd) && !rc) rc = io_error(err, "cannot close", path);
    return rc;
}

moec_status moec_file_replace(const char *path, const void *data, size_t bytes, moec_error *err) {
    char temp[MOEC_PATH_BYTES];
    MOEC_TRY(moec_path(temp, err, "%s.tmp.%ld", path, (long)getpid()));
    moec_status rc = moec_file_write(temp, data, bytes, true, err);
    if (!rc && rename(temp, path)) rc = io_error(err, "cannot rename to", path);
    if (rc) unlink(temp);
    return rc;
}

void moec_dir_sync(const char *path) {
    int fd;
    if (open_file(path, O_RDONLY | O_DIRECTORY, &fd, NULL)) return;
    (void)fsync(fd);
    close(fd);
}

moec_status moec_dir_make(const char *path, moec_error *err) {
    char part[MOEC_PATH_BYTES];
    MOEC_TRY(moec_path(part, err, "%s", path));
    for (char *at = part + 1;; at++) {
        char c = *at;
        if (c && c != '/') continue;
        *at = 0;
        if (mkdir(part, 0700) && errno != EEXIST && !(errno == EROFS && !access(part, X_OK)))
            return io_error(err, "cannot create the directory", part);
        if (!c) break;
        *at = c;
    }
    struct stat st;
    if (stat(path, &st)) return io_error(err, "cannot use", path);
    if (!S_ISDIR(st.st_mode)) return moec_fail(err, MOEC_E_IO, "%s is not a directory", path);
    return MOEC_OK;
}

moec_status moec_dir_temp(const char *parent, const char *prefix, char *path, moec_error *err) {
    MOEC_TRY(moec_path(path, err, "%s/%s.XXXXXX", parent, prefix));
    return mkdtemp(path) ? MOEC_OK : io_error(err, "cannot create a directory in", parent);
}

/* Removes what is in the directory `fd`, depth first; closes it. */
static void remove_inside(int fd) {
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (!unlinkat(fd, entry->d_name, 0)) continue;
        int sub = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub >= 0) remove_inside(sub);
        unlinkat(fd, entry->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

void moec_dir_remove(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) remove_inside(fd);
    rmdir(path);
}

/* access(2) says yes to root everywhere but on read-only file systems: a real attempt decides. */
bool moec_dir_writable(const char *path) {
    char probe[MOEC_PATH_BYTES];
    if (moec_dir_temp(path, ".probe", probe, NULL)) return false;
    rmdir(probe);
    return true;
}
