/* trainlog: RUN/log.jsonl, one JSON object a line (docs/log.md). Appended, never rewritten. */
#ifndef MOEC_TRAIN_TRAINLOG_H
#define MOEC_TRAIN_TRAINLOG_H

#include <jansson.h>
#include <stdio.h>

#include "config.h"

typedef struct trainlog {
    FILE *file;
    int lost;           /* lines that could not be written (disk full); training goes on */
} trainlog;

moec_status trainlog_open(trainlog *log, const char *run, moec_error *err);
void trainlog_close(trainlog *log);
/* Writes one line and releases `event`. A number that is not finite is written as null. */
void trainlog_write(trainlog *log, json_t *event);
/* {"group.key": "value", ...} of every setting. */
json_t *trainlog_settings(const train_config *config);
/* A JSON number, or null when it is not finite. */
json_t *trainlog_real(double value);

#endif
