/* trainlog: each line is one write to a file opened for appending, so a kill loses at most the line
 * being written, and a log can be followed while it grows. A line that a kill cut short is closed
 * with a newline when the run is resumed; readers skip lines that are not JSON. */
#include "trainlog.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../json_text.h"

static void close_cut_line(FILE *file) {
    if (fseek(file, -1, SEEK_END) == 0 && fgetc(file) != '\n') {
        fseek(file, 0, SEEK_END);
        fputc('\n', file);
    }
    fseek(file, 0, SEEK_END);
}

moec_status trainlog_open(trainlog *log, const char *run, moec_error *err) {
    char path[600];
    snprintf(path, sizeof path, "%s/log.jsonl", run);
    *log = (trainlog){.file = fopen(path, "a+")};
    if (!log->file) {
        moec_fail(err, MOEC_E_IO, "log %s: %s", path, strerror(errno));
        return moec_hint(err, MOEC_E_IO, "set train.run to a folder that can be written");
    }
    close_cut_line(log->file);
    return MOEC_OK;
}

void trainlog_close(trainlog *log) {
    if (log->file) fclose(log->file);
    log->file = NULL;
}

void trainlog_write(trainlog *log, json_t *event) {
    char *line = event ? json_dumps(event, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(event);
    if (!line || fprintf(log->file, "%s\n", line) < 0 || fflush(log->file)) {
        log->lost++;
        clearerr(log->file);
    }
    free(line);
}

static void add_setting(void *user, const char *group, const char *key, const char *value,
                        bool is_default) {
    char name[128];
    (void)is_default;
    snprintf(name, sizeof name, "%s.%s", group, key);
    json_object_set_new(user, name, moec_json_text(value));
}

json_t *trainlog_settings(const train_config *config) {
    json_t *object = json_object();
    config_each(config, add_setting, object);
    return object;
}

json_t *trainlog_real(double value) { return isfinite(value) ? json_real(value) : json_null(); }
