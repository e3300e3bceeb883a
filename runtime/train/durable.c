/* durable: write, fsync, rename, fsync the folder. In this order a name never shows half a file:
 * before the rename the old content is there, after it the new one, and the folder's fsync makes
 * the rename itself survive a power cut. Write errors (disk full, size limit) come back as E_IO
 * with the file's name; nothing here prints or exits. */
#include "durable.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static moec_status io_error(moec_error *err, int error, const char *doing, const char *path) {
    moec_fail(err, MOEC_E_IO, "%s %s: %s", doing, path, strerror(error));
    if (error == ENOSPC || error == EDQUOT || error == EFBIG)
        return moec_hint(err, MOEC_E_IO,
                         "no room for this file: free space (or raise the quota or file size limit "
                         "`ulimit -f`), or put train.run on another disk");
    if (error == EACCES || error == EROFS || error == EPERM)
        return moec_hint(err, MOEC_E_IO, "the folder is not writable: set train.run to one that is");
    return MOEC_E_IO;
}

moec_status durable_create(durable_file *file, const char *path, moec_error *err) {
    memset(file, 0, sizeof *file);
    snprintf(file->path, sizeof file->path, "%s", path);
    file->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file->fd < 0) return io_error(err, errno, "cannot create", path);
    return MOEC_OK;
}

void durable_write(durable_file *file, const void *data, size_t bytes) {
    const char *at = data;
    while (bytes && !file->error) {
        ssize_t n = write(file->fd, at, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) file->error = errno;
        else if (n == 0) file->error = ENOSPC;
        else at += n, bytes -= (size_t)n, file->bytes += (uint64_t)n;
    }
}

moec_status durable_close(durable_file *file, moec_error *err) {
    if (!file->error && fsync(file->fd)) file->error = errno;
    if (close(file->fd) && !file->error) file->error = errno;
    file->fd = -1;
    return file->error ? io_error(err, file->error, "cannot write", file->path) : MOEC_OK;
}

moec_status durable_mkdir(const char *path, moec_error *err) {
    char part[1024];
    if (strlen(path) >= sizeof part) return io_error(err, ENAMETOOLONG, "cannot create", path);
    for (size_t i = 1;; i++) {
        if (path[i] && path[i] != '/') continue;
        snprintf(part, sizeof part, "%.*s", (int)i, path);
        if (mkdir(part, 0777) && errno != EEXIST) return io_error(err, errno, "cannot create", part);
        if (!path[i]) return MOEC_OK;
    }
}

moec_status durable_sync_dir(const char *path, moec_error *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return io_error(err, errno, "cannot open", path);
    int bad = fsync(fd) ? errno : 0;
    close(fd);
    /* Some network file systems cannot sync a folder; the rename is still atomic there. */
    return bad && bad != EINVAL ? io_error(err, bad, "cannot sync", path) : MOEC_OK;
}

moec_status durable_rename(const char *from, const char *to, const char *parent, moec_error *err) {
    if (rename(from, to)) return io_error(err, errno, "cannot rename to", to);
    return durable_sync_dir(parent, err);
}

moec_status durable_replace(const char *path, const char *parent, const void *data, size_t bytes,
                            moec_error *err) {
    char temporary[1100];
    durable_file f;
    snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid());
    MOEC_TRY(durable_create(&f, temporary, err));
    durable_write(&f, data, bytes);
    moec_status rc = durable_close(&f, err);
    if (!rc) rc = durable_rename(temporary, path, parent, err);
    if (rc) unlink(temporary);
    return rc;
}

void durable_remove_dir(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return;
    for (struct dirent *e; (e = readdir(dir));) {
        char name[1400];
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        unlink(name);
    }
    closedir(dir);
    rmdir(path);
}
