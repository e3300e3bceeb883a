/* Search by timing: see search.h. */
#include "search.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "bench_data.h"
#include "ceiling.h"
#include "fs.h"
#include "plan.h"

enum { MOST_LEGAL = 8192, MOST_RUNS = 64, FINALISTS = 4, CHUNK = 16, HEATS = 2 };
static const double gpu_sample_seconds = 1e-3;

typedef struct candidate {
    moec_config config;
    int distance;           /* tunables that differ from the default's; 0 is the default itself */
    uint32_t order;         /* among those of one distance: drawn from the seed */
    moec_module *module;    /* NULL: refused, or out of the race */
    int inner, runs;        /* launches of a sample; samples kept */
    double best;            /* seconds of the fastest sample */
    double time[MOST_RUNS]; /* samples of the final */
} candidate;

/* One kernel's search. */
typedef struct race {
    bench_data *data;
    const moec_op *op;
    moec_spec spec;
    bool dense;
    moec_request request;
    const moec_search_options *options;
    moec_search_row *row;
    candidate *list;
    int count, turn;
    double deadline;
    moec_error *err;
} race;

/* Seconds that pass, also where moec_seconds counts those of the worker alone. */
static double wall(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- candidates ---- */

static uint32_t draw(uint64_t seed, int n) {
    uint64_t v = (seed + 1) * 0x9E3779B97F4A7C15u + (uint64_t)n * 0xD1B54A32D192ED03u;
    v ^= v >> 29;
    return (uint32_t)((v * 0xBF58476D1CE4E5B9u) >> 32);
}

static bool collect(void *user, const moec_config *config, const char *why) {
    race *r = user;
    if (why) return true;
    candidate *c = &r->list[r->count];
    *c = (candidate){.config = *config, .order = draw(r->options->bench.seed, r->count), .best = 1e300};
    for (int i = 0; i < config->count; i++)
        c->distance += config->item[i].value != r->list[0].config.item[i].value;
    if (c->distance) r->count++; /* the default is there already */
    return r->count < MOST_LEGAL;
}

static int nearer(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->distance != y->distance) return x->distance - y->distance;
    return (x->order > y->order) - (x->order < y->order);
}

static moec_status gather(race *r) {
    moec_gen *gen = r->data->device->gen;
    r->list[0] = (candidate){.best = 1e300};
    r->count = 1;
    MOEC_TRY(moec_config_default(gen, &r->request, &r->list[0].config, r->err));
    MOEC_TRY(moec_space_each(gen, &r->request, collect, r, r->err));
    r->row->legal = r->count;
    qsort(r->list + 1, (size_t)r->count - 1, sizeof *r->list, nearer);
    if (r->count > r->options->candidates + 1) r->count = r->options->candidates + 1;
    return MOEC_OK;
}

/* ---- modules ---- */

static void refuse(race *r, candidate *c, const char *why) {
    char config[160];
    moec_config_print(&c->config, config, sizeof config);
    moec_module_free(r->data->device, c->module);
    c->module = NULL;
    if (!r->row->rejected++)
        snprintf(r->row->reason, sizeof r->row->reason, "%s: %.*s", config, (int)strcspn(why, "\n"), why);
}

/* A compiler's no concerns one candidate; a device that is lost, or a full disk, concerns all. */
static bool of_candidate(const race *r, moec_status rc) {
    return rc == MOEC_E_COMPILE || rc == MOEC_E_TIMEOUT || rc == MOEC_E_UNSUPPORTED ||
           (rc == MOEC_E_DEVICE && !r->data->device->dead);
}

/* What is wrong, below the context "op up on sm_90a". */
static const char *cause(const moec_error *chain) {
    const char *line = strchr(chain->text, '\n');
    return line && !strncmp(chain->text, "op ", 3) ? line + 1 : chain->text;
}

static moec_status create(race *r, int first, int count) {
    moec_request requests[CHUNK];
    moec_module *modules[CHUNK];
    for (int i = 0; i < count; i++) {
        requests[i] = r->request;
        requests[i].config = &r->list[first + i].config;
    }
    moec_error why = {0};
    moec_status rc = moec_module_create_all(r->data->device, requests, count, modules, &why);
    for (int i = 0; i < count && !rc; i++) r->list[first + i].module = modules[i];
    if (!rc) return MOEC_OK;
    if (!of_candidate(r, rc)) return moec_fail(r->err, rc, "%s", why.text);
    if (count > 1) { /* all or none: one by one, what was compiled is in the cache */
        for (int i = 0; i < count; i++) MOEC_TRY(create(r, first + i, 1));
        return MOEC_OK;
    }
    refuse(r, &r->list[first], cause(&why));
    return MOEC_OK;
}

static bool stopped(const moec_search_options *options) { return options->stop && *options->stop; }

static bool late(const race *r) { return wall() > r->deadline || stopped(r->options); }

static moec_status create_all(race *r) {
    for (int first = 0; first < r->count;) {
        int n = first == 0 ? 1 : r->count - first < CHUNK ? r->count - first : CHUNK;
        if (first && late(r)) {
            r->count = first;
            r->row->in_time = false;
        } else {
            MOEC_TRY(create(r, first, n));
        }
        first += n;
    }
    if (r->list[0].module) return MOEC_OK;
    return moec_fail(r->err, MOEC_E_COMPILE, "the default config is refused: %s", r->row->reason);
}

/* ---- timing ---- */

static moec_status launch(race *r, const candidate *c) {
    moec_arg args[MOEC_MAX_ARGS];
    bench_data *d = r->data;
    moec_sizes sizes = bench_sizes(d, &r->spec, r->dense);
    bench_buffer *scratch = NULL;
    size_t bytes;
    MOEC_TRY(moec_module_scratch(d->device, c->module, sizes.T, sizes.R, sizes.N, &bytes, r->err));
    if (bytes) MOEC_TRY(bench_buffer_get(d, "scratch", MOEC_T_F32, bytes, 1, &scratch, r->err));
    MOEC_TRY(bench_args(d, r->op, &r->spec, r->dense, r->turn++, args, r->err));
    return moec_module_launch(d->device, NULL, c->module, args, sizes.T, sizes.R, sizes.N,
                              scratch ? scratch->at[0] : NULL, r->err);
}

static moec_status sample(race *r, candidate *c, double *seconds) {
    double start = moec_seconds();
    for (int i = 0; i < c->inner; i++) MOEC_TRY(launch(r, c));
    MOEC_TRY(moec_synchronize(r->data->device, NULL, r->err));
    *seconds = (moec_seconds() - start) / c->inner;
    return MOEC_OK;
}

/* Twice for warmth; a launch that the device refuses takes the candidate out. */
static moec_status warm(race *r, candidate *c) {
    bool gpu = strcmp(r->data->device->target->family, "cpu") != 0;
    double seconds = 0;
    moec_status rc = MOEC_OK;
    c->inner = 1;
    for (int i = 0; i < 2 && !rc; i++) rc = sample(r, c, &seconds);
    if (rc && c->distance && of_candidate(r, rc)) {
        refuse(r, c, cause(r->err));
        return MOEC_OK;
    }
    if (gpu && seconds < gpu_sample_seconds) c->inner = (int)(gpu_sample_seconds / (seconds + 1e-9)) + 1;
    if (c->inner > 1000) c->inner = 1000;
    if (!rc) r->row->tried++;
    return rc;
}

static int faster(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    return (x->best > y->best) - (x->best < y->best);
}

/* Drops the refused and orders the rest: the default first, then by time. */
static void rank(race *r) {
    int kept = 0;
    for (int i = 0; i < r->count; i++)
        if (r->list[i].module) r->list[kept++] = r->list[i];
    r->count = kept;
    qsort(r->list + 1, (size_t)kept - 1, sizeof *r->list, faster);
}

/* A heat: all that are left, in turn; the faster half stays. */
static moec_status heat(race *r) {
    for (int turn = 0; turn < HEATS; turn++)
        for (int i = 0; i < r->count; i++) {
            double seconds;
            MOEC_TRY(sample(r, &r->list[i], &seconds));
            if (seconds < r->list[i].best) r->list[i].best = seconds;
        }
    rank(r);
    int stay = (r->count - 1) / 2 > FINALISTS ? (r->count - 1) / 2 : FINALISTS;
    for (int i = stay + 1; i < r->count; i++) moec_module_free(r->data->device, r->list[i].module);
    if (r->count > stay + 1) r->count = stay + 1;
    return MOEC_OK;
}

static moec_status final(race *r) {
    int repeat = r->options->bench.repeat < MOST_RUNS ? r->options->bench.repeat : MOST_RUNS;
    for (int turn = 0; turn < repeat && (turn < 3 || !late(r)); turn++)
        for (int i = 0; i < r->count; i++) {
            candidate *c = &r->list[i];
            MOEC_TRY(sample(r, c, &c->time[c->runs]));
            c->runs++;
        }
    return MOEC_OK;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void decide(race *r) {
    candidate *winner = &r->list[0];
    for (int i = 0; i < r->count; i++) {
        candidate *c = &r->list[i];
        qsort(c->time, (size_t)c->runs, sizeof *c->time, compare);
        c->best = c->time[c->runs / 2];
        if (c->best < winner->best) winner = c;
    }
    r->row->default_ms = 1e3 * r->list[0].best;
    r->row->best_ms = 1e3 * winner->best;
    moec_config_print(&r->list[0].config, r->row->default_config, sizeof r->row->default_config);
    moec_config_print(&winner->config, r->row->best_config, sizeof r->row->best_config);
}

/* ---- one kernel ---- */

static moec_status run_race(race *r) {
    MOEC_TRY(create_all(r));
    for (int i = 0; i < r->count; i++)
        if (r->list[i].module) MOEC_TRY(warm(r, &r->list[i]));
    rank(r);
    do MOEC_TRY(heat(r)); while (r->count > FINALISTS + 1 && !late(r));
    MOEC_TRY(final(r));
    decide(r);
    return MOEC_OK;
}

static moec_status search_row(bench_data *d, const moec_search_options *options, const moec_layer_row *row,
                              moec_search_row *out, bool *taken, moec_error *err) {
    race r = {.data = d, .op = moec_op_get(row->op), .spec = moec_layer_row_spec(row, d->spec), .dense = row->shared,
              .options = options, .row = out, .deadline = wall() + options->seconds, .err = err};
    *out = (moec_search_row){.in_time = true};
    snprintf(out->name, sizeof out->name, "%s", row->name);
    r.request = (moec_request){.op = r.op, .spec = &r.spec, .target = d->device->target, .tokens = d->T};
    r.request.target = moec_serving_target(d->device->gen, &r.request);
    if (!r.request.target) return moec_fail(err, MOEC_E_UNSUPPORTED, "no template serves %s", row->name);
    snprintf(out->target, sizeof out->target, "%s", r.request.target->name);
    r.list = calloc(MOST_LEGAL + 1, sizeof *r.list);
    if (!r.list) return moec_fail(err, MOEC_E_NOMEM, "out of memory: candidates");
    moec_status rc = gather(&r);
    *taken = !rc && r.count > 1;
    if (*taken && options->bench.progress) options->bench.progress(options->bench.user, row->name);
    if (*taken) rc = run_race(&r);
    for (int i = 0; i < r.count; i++) moec_module_free(d->device, r.list[i].module);
    free(r.list);
    return rc ? moec_context(err, rc, "search of %s", row->name) : MOEC_OK;
}

/* ---- a layer ---- */

static moec_status each_row(bench_data *d, const moec_search_options *options, moec_search_row *rows, int *count,
                            moec_error *err) {
    MOEC_TRY(bench_data_open(d, err));
    MOEC_TRY(bench_route(d, err));
    for (moec_layer_slot i = 0; i < MOEC_L_COUNT; i++) {
        const moec_layer_row *row = moec_layer_row_at(i);
        bool taken = false;
        if (stopped(options)) break;
        if (!moec_layer_row_used(row, d->spec)) continue;
        if (options->bench.ops && !moec_bench_asked(options->bench.ops, row->name)) continue;
        MOEC_TRY(search_row(d, options, row, &rows[*count], &taken, err));
        *count += taken;
        if (taken && options->found) options->found(options->bench.user, *count);
    }
    return MOEC_OK;
}

static moec_status check_names(const char *ops, moec_error *err) {
    char names[256] = "";
    for (moec_layer_slot i = 0; i < MOEC_L_COUNT; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), " %s", moec_layer_row_at(i)->name);
    for (const char *at = ops; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        size_t n = strcspn(at, ",");
        if (moec_layer_row_is(at, n)) continue;
        moec_status rc = moec_fail(err, MOEC_E_SPEC, "--op %.*s: no such row of the layer", (int)n, at);
        return moec_hint(err, rc, "rows:%s", names);
    }
    return MOEC_OK;
}

moec_status moec_search_run(moec_device *device, const moec_spec *spec, const moec_search_options *options,
                            moec_search_row *rows, int *count, moec_error *err) {
    const moec_bench_options *o = &options->bench;
    *count = 0;
    if (o->tokens < 1 || o->repeat < 1 || options->candidates < 1)
        return moec_fail(err, MOEC_E_INVAL, "tokens, repeat and candidates must be at least 1");
    if (!(options->seconds > 0)) return moec_fail(err, MOEC_E_INVAL, "seconds must be more than 0");
    MOEC_TRY(check_names(o->ops, err));
    MOEC_TRY(moec_bench_check_cpu_time(device, o, err));
    MOEC_TRY(moec_device_ready(device, err));
    bench_data d = {.device = device, .spec = spec, .options = o, .T = o->tokens, .R = o->tokens * spec->K};
    moec_seconds_of_thread(o->cpu_time);
    moec_status rc = each_row(&d, options, rows, count, err);
    moec_seconds_of_thread(false);
    bench_data_close(&d);
    if (!rc && !*count && !stopped(options))
        return moec_fail(err, MOEC_E_UNSUPPORTED, "none of these kernels has more than one legal config");
    return rc;
}

moec_status moec_search_can_write(const char *path, moec_error *err) {
    char parent[MOEC_PATH_BYTES];
    struct stat st;
    MOEC_TRY(moec_path(parent, err, "%s", path));
    char *slash = strrchr(parent, '/');
    if (slash) slash[slash == parent] = 0;
    bool there = !stat(path, &st), file = there && S_ISREG(st.st_mode);
    const char *why = there && !file ? "it is there and is no file"
                      : file && st.st_size && !moec_plan_at(path) ? "it is there and is no plan"
                      : !moec_dir_writable(slash ? parent : ".") ? "no file can be made in its folder" : NULL;
    if (!why) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_IO, "the plan %s cannot be written: %s", path, why);
    return moec_hint(err, rc, "name a new file, or a plan to replace, in a folder that you may write");
}

moec_status moec_search_write(const char *path, const moec_spec *spec, const moec_target *target,
                              const moec_search_row *rows, int count, moec_error *err) {
    enum { BYTES = 1 << 14 };
    char canonical[MOEC_SPEC_BYTES], *text = malloc(BYTES);
    if (!text) return moec_fail(err, MOEC_E_NOMEM, "out of memory: plan");
    moec_spec_print(spec, NULL, canonical, sizeof canonical);
    int n = snprintf(text, BYTES, "moec plan 1\ntarget : %s\nspec : %s\n", target->name, canonical);
    for (int i = 0; i < count; i++)
        n += snprintf(text + n, (size_t)(BYTES - n), "%s : %s\n", rows[i].name, rows[i].best_config);
    moec_status rc = moec_file_replace(path, text, (size_t)n, err);
    free(text);
    return rc;
}
