/* Files are written whole and renamed, so several processes may share a folder. */
#include "verify_results.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs.h"

static const char magic[32] = "moec results 1";

static void take(void *user, const char *name, int64_t i, double got, double bound) {
    moec_results *r = user;
    if (r->count == r->room) {
        size_t room = r->room ? 2 * r->room : 4096;
        moec_result *item = realloc(r->item, room * sizeof *item);
        if (!item) {
            r->failed = true;
            return;
        }
        r->item = item;
        r->room = room;
    }
    moec_result *x = &r->item[r->count++];
    *x = (moec_result){.got = got, .bound = bound, .i = i};
    snprintf(x->name, sizeof x->name, "%s", name);
}

void moec_results_watch(moec_results *results, moec_verdict *verdict) {
    verdict->take = take;
    verdict->user = results;
}

void moec_results_free(moec_results *results) {
    free(results->item);
    *results = (moec_results){0};
}

static moec_status path_of(const char *dir, const moec_verify_row *row, char *path, moec_error *err) {
    char text[MOEC_SPEC_BYTES + 700], hash[33];
    moec_spec_print(row->spec, NULL, text, MOEC_SPEC_BYTES);
    size_t n = strlen(text);
    snprintf(text + n, sizeof text - n, " | %s %" PRId64 " %s %" PRIu64 " %d", row->op, row->T,
             row->pattern ? row->pattern->text : "", row->seed, row->variant);
    moec_hash_hex(text, strlen(text), hash);
    return moec_path(path, err, "%s/%s-%.16s.results", dir, row->op, hash);
}

moec_status moec_results_write(const moec_results *results, const char *dir, const moec_verify_row *row,
                               moec_error *err) {
    char path[MOEC_PATH_BYTES];
    size_t bytes = sizeof magic + results->count * sizeof *results->item;
    if (results->failed) return moec_fail(err, MOEC_E_NOMEM, "out of memory: results of %s", row->op);
    MOEC_TRY(moec_dir_make(dir, err));
    MOEC_TRY(path_of(dir, row, path, err));
    char *image = malloc(bytes);
    if (!image) return moec_fail(err, MOEC_E_NOMEM, "out of memory: results of %s", row->op);
    memcpy(image, magic, sizeof magic);
    if (results->count) memcpy(image + sizeof magic, results->item, results->count * sizeof *results->item);
    moec_status rc = moec_file_replace(path, image, bytes, err);
    free(image);
    return rc;
}

static void fault(moec_verdict *v, const char *format, ...) MOEC_PRINTF(2, 3);
static void fault(moec_verdict *v, const char *format, ...) {
    va_list args;
    if (*v->fault) return;
    va_start(args, format);
    vsnprintf(v->fault, sizeof v->fault, format, args);
    va_end(args);
}

static void compare_one(const moec_result *mine, const moec_result *other, const char *dir, moec_verdict *v) {
    double apart = fabs(mine->got - other->got), most = mine->bound + other->bound;
    if (mine->got == other->got || (isnan(mine->got) && isnan(other->got))) apart = 0;
    double ratio = apart == 0 ? 0 : most > 0 ? apart / most : INFINITY;
    if (isnan(ratio)) ratio = INFINITY;
    if (ratio > v->apart) v->apart = ratio;
    if (apart == 0 || apart <= most) return;
    fault(v, "%s[%" PRId64 "] is %.9g here and %.9g in %s: further apart than both bounds, %.3g", mine->name, mine->i,
          mine->got, other->got, dir, most);
}

moec_status moec_results_compare(const moec_results *results, const char *dir, const moec_verify_row *row,
                                 moec_verdict *verdict, moec_error *err) {
    char path[MOEC_PATH_BYTES], *image;
    size_t bytes, wanted = sizeof magic + results->count * sizeof *results->item;
    if (results->failed) return moec_fail(err, MOEC_E_NOMEM, "out of memory: results of %s", row->op);
    MOEC_TRY(path_of(dir, row, path, err));
    if (moec_file_read(path, &image, &bytes, NULL)) {
        fault(verdict, "%s has no answer to this case", dir);
        return MOEC_OK;
    }
    bool same = bytes == wanted && !memcmp(image, magic, sizeof magic);
    for (size_t k = 0; same && k < results->count; k++) {
        moec_result other;
        memcpy(&other, image + sizeof magic + k * sizeof other, sizeof other);
        same = !strncmp(other.name, results->item[k].name, sizeof other.name) && other.i == results->item[k].i;
        if (same) compare_one(&results->item[k], &other, dir, verdict);
    }
    if (!same) fault(verdict, "%s holds other arrays than this case has: damaged, or of another version", path);
    free(image);
    return MOEC_OK;
}
