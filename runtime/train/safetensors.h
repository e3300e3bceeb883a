/* safetensors: the file format of named tensors that the field exchanges (safetensors.c).
 * 8 bytes little-endian header size, a JSON header {name: {dtype, shape, data_offsets}}, data. */
#ifndef MOEC_TRAIN_SAFETENSORS_H
#define MOEC_TRAIN_SAFETENSORS_H

#include <stdint.h>

#include "durable.h"

enum { ST_NAME_BYTES = 112, ST_MAX_RANK = 4 };

/* One float32 tensor of a file. */
typedef struct st_tensor {
    char name[ST_NAME_BYTES];
    int rank;
    int64_t shape[ST_MAX_RANK];
    int64_t count;      /* elements */
    uint64_t offset;    /* bytes from the start of the data; set by st_create and st_open */
} st_tensor;

/* Starts a file: writes the header for these tensors. Data must follow in the same order. */
moec_status st_create(durable_file *file, const char *path, st_tensor *tensors, int64_t count,
                      char header_hash[33], moec_error *err);

typedef struct st_file {
    char path[1024];
    const unsigned char *map; /* whole file */
    uint64_t bytes, data;     /* size; where the data begins */
    st_tensor *tensors;       /* sorted by name */
    int64_t count;
} st_file;

/* Maps a file and checks its whole structure: sizes, offsets, overlaps, dtype. E_CORRUPT otherwise. */
moec_status st_open(st_file *file, const char *path, moec_error *err);
void st_close(st_file *file);
const st_tensor *st_find(const st_file *file, const char *name); /* NULL when absent */
const float *st_data(const st_file *file, const st_tensor *tensor);
void st_header_hash(const st_file *file, char hex[33]);

#endif
