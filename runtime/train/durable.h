/* durable: files that are complete or absent, whatever is killed when (durable.c). */
#ifndef MOEC_TRAIN_DURABLE_H
#define MOEC_TRAIN_DURABLE_H

#include <stdint.h>
#include <stdio.h>

#include "../../gen/status.h"

/* A file being written; every error is kept and reported once, at close. */
typedef struct durable_file {
    int fd;
    int error;          /* first errno, 0 while all is well */
    uint64_t bytes;     /* given so far */
    char path[1024];
} durable_file;

moec_status durable_create(durable_file *file, const char *path, moec_error *err);
void durable_write(durable_file *file, const void *data, size_t bytes);
/* fsync and close. E_IO with the file's name and, on a full disk, what to do. */
moec_status durable_close(durable_file *file, moec_error *err);

/* Makes a folder and those above it. */
moec_status durable_mkdir(const char *path, moec_error *err);
moec_status durable_sync_dir(const char *path, moec_error *err);
/* Publishes: rename, then fsync of the folder that holds it. */
moec_status durable_rename(const char *from, const char *to, const char *parent, moec_error *err);
/* Replaces a small file as one step: temporary file, fsync, rename. */
moec_status durable_replace(const char *path, const char *parent, const void *data, size_t bytes,
                            moec_error *err);
/* Removes a folder with the plain files in it; missing is fine. */
void durable_remove_dir(const char *path);

#endif
