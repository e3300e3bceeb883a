/* moec gen: writes kernels as source, with a manifest; --compile adds binaries. No device is
 * needed.
 *
 * The directory appears whole or not at all: everything is written beside it and renamed. A
 * directory that an earlier gen wrote is replaced; any other is left alone with an error. SIGINT and
 * SIGTERM end it after the kernel at hand, with nothing left behind.
 * Sources and manifest have the same bytes on any machine; binaries are the compiler's. */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs.h"
#include "layer.h"
#include "toolchain.h"

/* What one run works with. */
typedef struct job {
    const cli_call *call;
    const volatile sig_atomic_t *stop;
    const moec_target *target;
    moec_spec spec;
    moec_gen *gen;
    char dir[MOEC_PATH_BYTES];   /* being written; renamed at the end */
    json_t *kernels;
} job;

/* ---- one kernel ---- */

static json_t *expressions(const char (*list)[MOEC_EXPR_BYTES], int from, int to) {
    json_t *array = json_array();
    for (int i = from; i < to; i++) json_array_append_new(array, json_string(list[i]));
    return array;
}

static json_t *tmaps_json(const moec_launch *l) {
    json_t *list = json_array();
    for (int i = 0; i < l->tmap_count; i++) {
        const moec_tmap *m = &l->tmap[i];
        json_t *box = json_array();
        for (int k = 0; k < m->rank; k++) json_array_append_new(box, json_integer(m->box[k]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:o, s:o, s:i, s:i}", "arg", m->arg, "offset",
                                              *m->offset ? m->offset : "0", "dim", expressions(m->dim, 0, m->rank),
                                              "stride", expressions(m->stride, 1, m->rank), "box", box, "swizzle",
                                              m->swizzle, "l2", m->l2));
    }
    return list;
}

static json_t *launch_json(const moec_launch *l) {
    json_t *object = json_pack("{s:s}", "scratch", l->scratch);
    if (l->block) /* a GPU */
        json_object_update_new(object, json_pack("{s:s, s:i, s:i, s:i, s:i}", "grid", l->grid,
                                                 "block", l->block, "cluster", l->cluster,
                                                 "shared_bytes", l->shared_bytes, "pdl", l->pdl));
    if (l->phases > 1) json_object_set_new(object, "phases", json_integer(l->phases));
    if (l->tmap_count) json_object_set_new(object, "tensor_maps", tmaps_json(l));
    return object;
}

static json_t *args_json(const moec_op *op, const moec_spec *spec) {
    static const char *const roles[] = {"in", "out", "inout", "scalar"};
    json_t *list = json_array();
    for (int i = 0; i < op->arg_count; i++) {
        const moec_arg_info *a = &op->args[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:b}", "name", a->name, "role",
                                              roles[a->role], "type",
                                              moec_type_name(moec_arg_dtype(a, spec)), "shape",
                                              a->shape, "optional", (int)a->optional));
    }
    return list;
}

static json_t *kernel_json(const char *name, const moec_kernel *k, const char *file) {
    char spec[MOEC_SPEC_BYTES], config[512];
    moec_spec_print(&k->spec, NULL, spec, sizeof spec);
    moec_config_print(&k->config, config, sizeof config);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o}", "name", name,
                     "op", k->op->name, "target", k->target->name, "spec", spec, "config", config,
                     "symbol", k->symbol, "file", file, "hash", k->hash, "flops", k->flops, "bytes",
                     k->bytes, "launch", launch_json(&k->launch), "args",
                     args_json(k->op, &k->spec));
}

/* Adds the binary beside the source; its hash and the toolchain's name go to the manifest. */
static moec_status compile(const job *j, const char *source, const char *symbol, json_t *entry,
                           moec_error *err) {
    char binary[512], path[MOEC_PATH_BYTES], id[MOEC_TOOLCHAIN_ID_BYTES], hash[33], *data;
    size_t bytes;
    const moec_toolchain *toolchain = moec_toolchain_find(j->target->family);
    if (!toolchain)
        return moec_fail(err, MOEC_E_UNSUPPORTED, "this build has no compiler for %s",
                         j->target->name);
    MOEC_TRY(toolchain->identify(j->target, id, err));
    snprintf(binary, sizeof binary, "%s%s", symbol, toolchain->suffix);
    MOEC_TRY(toolchain->compile(j->target, j->dir, source, binary, err));
    MOEC_TRY(moec_path(path, err, "%s/%s", j->dir, binary));
    MOEC_TRY(moec_file_read(path, &data, &bytes, err));
    moec_hash_hex(data, bytes, hash);
    free(data);
    if (!moec_path(path, NULL, "%s/log.txt", j->dir))
        unlink(path); /* of a compiler that was content */
    json_object_set_new(entry, "binary", json_string(binary));
    json_object_set_new(entry, "binary_hash", json_string(hash));
    json_object_set_new(entry, "toolchain", json_string(id));
    return MOEC_OK;
}

static json_t *entry_of(const job *j, const char *symbol) {
    size_t i;
    json_t *entry;
    json_array_foreach(j->kernels, i, entry)
        if (!strcmp(json_string_value(json_object_get(entry, "symbol")), symbol)) return entry;
    return NULL;
}

/* Two rows of the layer share the kernel: what was compiled for the first is the second's. */
static void share_binary(json_t *entry, const json_t *first) {
    static const char *const keys[] = {"binary", "binary_hash", "toolchain"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (json_object_get(first, keys[i])) json_object_set(entry, keys[i], json_object_get(first, keys[i]));
}

static moec_status write_kernel(job *j, const char *name, const moec_kernel *k, moec_error *err) {
    char file[512], path[MOEC_PATH_BYTES];
    snprintf(file, sizeof file, "%s%s", k->symbol, k->target->suffix);
    json_t *entry = kernel_json(name, k, file), *first = entry_of(j, k->symbol);
    if (first) share_binary(entry, first);
    json_array_append_new(j->kernels, entry);
    if (first) return MOEC_OK;
    MOEC_TRY(moec_path(path, err, "%s/%s", j->dir, file));
    if (*j->stop) return moec_fail(err, MOEC_E_STOPPED, "stopped by a signal: nothing was written");
    MOEC_TRY(moec_file_write(path, k->source, k->source_bytes, true, err));
    return cli_flag(j->call, "compile") ? compile(j, file, k->symbol, entry, err) : MOEC_OK;
}

static moec_status gen_one(job *j, const char *name, moec_op_id op, const moec_spec *spec,
                           moec_error *err) {
    moec_config config;
    moec_kernel kernel = {0};
    const char *text = cli_text(j->call, "config");
    moec_request r = {.op = moec_op_get(op), .spec = spec, .target = j->target,
                      .tokens = cli_int(j->call, "tokens")};
    const moec_target *serving = moec_serving_target(j->gen, &r);
    if (serving) r.target = serving;
    if (text) MOEC_TRY(moec_config_parse(j->gen, &r, text, &config, err));
    if (text) r.config = &config;
    moec_status rc = moec_emit(j->gen, &r, &kernel, err);
    if (!rc) rc = write_kernel(j, name, &kernel, err);
    moec_kernel_free(&kernel);
    return rc ? moec_context(err, rc, "%s on %s", name, j->target->name) : MOEC_OK;
}

/* ---- which kernels ---- */

static moec_status gen_layer(job *j, moec_error *err) {
    for (int i = 0; i < MOEC_L_COUNT; i++) {
        const moec_layer_row *row = moec_layer_row_at((moec_layer_slot)i);
        moec_spec spec = moec_layer_row_spec(row, &j->spec);
        if (!moec_layer_row_used(row, &j->spec)) continue;
        MOEC_TRY(gen_one(j, row->name, row->op, &spec, err));
    }
    return MOEC_OK;
}

static moec_status gen_listed(job *j, const char *list, moec_error *err) {
    for (const char *at = list; *at; at += *at == ',') {
        char name[64];
        size_t n = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)n, at);
        at += n;
        const moec_op *op = moec_op_find(name);
        if (!op) return cli_no_op(name, err);
        MOEC_TRY(gen_one(j, name, op->id, &j->spec, err));
    }
    return MOEC_OK;
}

/* ---- the directory ---- */

static bool named(const json_t *manifest, const char *file) {
    size_t i;
    json_t *entry;
    if (!strcmp(file, "manifest.json")) return true;
    json_array_foreach(json_object_get(manifest, "kernels"), i, entry) {
        const char *source = json_string_value(json_object_get(entry, "file"));
        const char *binary = json_string_value(json_object_get(entry, "binary"));
        if ((source && !strcmp(source, file)) || (binary && !strcmp(binary, file))) return true;
    }
    return false;
}

/* Does the directory hold what an earlier gen wrote and nothing else? `foreign` says what not. */
static bool ours(const char *dir, char foreign[256]) {
    char path[MOEC_PATH_BYTES];
    json_error_t why;
    bool all = true;
    snprintf(foreign, 256, "manifest.json is not there");
    if (moec_path(path, NULL, "%s/manifest.json", dir)) return false;
    json_t *manifest = json_load_file(path, 0, &why);
    const char *format = json_string_value(json_object_get(manifest, "format"));
    DIR *d = format && !strcmp(format, "moec kernels 1") ? opendir(dir) : NULL;
    for (struct dirent *e; d && all && (e = readdir(d));) {
        all = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || named(manifest, e->d_name);
        if (!all) snprintf(foreign, 256, "it holds %.200s", e->d_name);
    }
    bool yes = d && all;
    if (d) closedir(d);
    json_decref(manifest);
    return yes;
}

static moec_status begin(job *j, const char *out, moec_error *err) {
    char parent[MOEC_PATH_BYTES], foreign[256];
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    MOEC_TRY(moec_path(parent, err, "%.*s", (int)n, out));
    if (!access(parent, F_OK) && !ours(parent, foreign) && rmdir(parent)) {
        moec_status rc = moec_fail(err, MOEC_E_IO, "%s exists and was not written by moec gen: %s",
                                   parent, foreign);
        return moec_hint(err, rc, "name a new directory with -o");
    }
    char *slash = strrchr(parent, '/');
    if (slash && slash != parent) *slash = 0;
    else snprintf(parent, sizeof parent, "%s", slash ? "/" : ".");
    MOEC_TRY(moec_dir_make(parent, err));
    MOEC_TRY(moec_dir_temp(parent, ".moec-gen", j->dir, err));
    mode_t mask = umask(0); /* what is written is for others too, as far as the user lets them */
    umask(mask);
    chmod(j->dir, 0777 & ~mask);
    return MOEC_OK;
}

static moec_status write_manifest(job *j, moec_error *err) {
    char path[MOEC_PATH_BYTES], spec[MOEC_SPEC_BYTES];
    moec_spec_print(&j->spec, NULL, spec, sizeof spec);
    json_t *manifest = json_pack("{s:s, s:s, s:s, s:s, s:O}", "format", "moec kernels 1", "version",
                                 moec_version(), "spec", spec, "target", j->target->name, "kernels",
                                 j->kernels);
    char *text = json_dumps(manifest, JSON_INDENT(2));
    json_decref(manifest);
    if (!text) return moec_fail(err, MOEC_E_NOMEM, "out of memory: manifest");
    moec_status rc = moec_path(path, err, "%s/manifest.json", j->dir);
    size_t n = strlen(text);
    text[n] = '\n'; /* replaces the NUL: the file ends with a newline */
    if (!rc) rc = moec_file_write(path, text, n + 1, true, err);
    free(text);
    return rc;
}

/* What an earlier gen wrote moves aside first and comes back when the new one cannot take its place. */
static moec_status publish(const job *j, const char *out, moec_error *err) {
    char foreign[256], old[MOEC_PATH_BYTES];
    MOEC_TRY(moec_path(old, err, "%s.old", j->dir));
    bool replaced = ours(out, foreign) && !rename(out, old);
    if (rename(j->dir, out)) {
        int code = errno;
        if (replaced) (void)rename(old, out);
        moec_status rc = moec_fail(err, MOEC_E_IO, "cannot rename to %s: %s", out, strerror(code));
        return code == ENOTEMPTY || code == EEXIST ? moec_hint(err, rc, "another program writes there: try again") : rc;
    }
    if (replaced) moec_dir_remove(old);
    return MOEC_OK;
}

/* ---- the verb ---- */

static moec_status write_into(job *j, const char *out, moec_error *err) {
    const char *list = cli_text(j->call, "op");
    MOEC_TRY(begin(j, out, err));
    moec_status rc = moec_gen_new(&j->gen, err);
    if (!rc) rc = strcmp(list, "layer") ? gen_listed(j, list, err) : gen_layer(j, err);
    if (!rc) rc = write_manifest(j, err);
    if (!rc) rc = publish(j, out, err);
    if (rc) moec_dir_remove(j->dir);
    moec_gen_free(j->gen);
    return rc;
}

/* Through a link: what it points to is replaced, the link stays. */
static moec_status write_all(job *j, const char *out, moec_error *err) {
    char *real = realpath(out, NULL);
    moec_status rc = write_into(j, real ? real : out, err);
    free(real);
    return rc;
}

static void print_kernels(const job *j, const char *out) {
    size_t i;
    json_t *entry;
    json_array_foreach(j->kernels, i, entry)
        printf("%-12s %s/%s\n", json_string_value(json_object_get(entry, "name")), out,
               json_string_value(json_object_get(entry, "file")));
    printf("%-12s %s/manifest.json\n", "manifest", out);
}

static const moec_target *find_target(const char *name) {
    const moec_target *target = moec_target_find(name);
    return target || strcmp(name, "cpu") ? target : moec_cpu_best();
}

static moec_status run(cli_call *call, moec_error *err) {
    job j = {.call = call, .stop = cli_stop(), .kernels = json_array()};
    const char *out = cli_text(call, "output"), *list = cli_text(call, "op");
    moec_status rc = cli_spec(call, 0, &j.spec, err);
    j.target = find_target(cli_text(call, "target"));
    if (!rc && !j.target && strchr(cli_text(call, "target"), ':'))
        rc = cli_usage(call, err, "-t %s: kernels are for all GPUs of a target: leave the index out",
                       cli_text(call, "target"));
    if (!rc && !j.target) rc = moec_unknown_target(cli_text(call, "target"), err);
    if (!rc && !out) rc = cli_usage(call, err, "-o DIR is needed");
    if (!rc && cli_text(call, "config") && (!strcmp(list, "layer") || strchr(list, ',')))
        rc = cli_usage(call, err, "--config goes with one --op");
    if (!rc) {
        cli_settings(call, &j.spec, j.target->name);
        rc = write_all(&j, out, err);
    }
    if (!rc && call->json)
        cli_print_json(json_pack("{s:o, s:O}", "settings",
                                 cli_settings_json(call, &j.spec, j.target->name), "kernels",
                                 j.kernels));
    else if (!rc)
        print_kernels(&j, out);
    json_decref(j.kernels);
    return rc;
}

static const cli_option options[] = {
    {"output",  'o', CLI_TEXT, "DIR", NULL, "directory to write: new, or one that gen wrote"},
    {"op",      0,   CLI_TEXT, "OP",  "layer", "ops separated by commas, or layer: its kernels"},
    {"config",  'c', CLI_TEXT, "C",   NULL, "tunables of the one --op, \"name=value ...\""},
    {"compile", 0,   CLI_FLAG, "",    NULL, "add binaries (.so, .cubin, .co)"},
    {0},
};

const cli_verb cli_gen_verb = {
    .name = "gen", .summary = "writes kernels as source with a manifest, for any target",
    .operands = "SPEC", .common = "target tokens", .options = options,
    .examples = {"moec gen E=64 K=6 H=2048 F=1408 -t cpu-avx512 -o kernels",
                 "moec gen E=64 K=6 H=2048 F=1408 -t sm_90a -o kernels --compile",
                 "moec gen E=8 K=2 H=512 F=1024 -t cpu-amx --op up --config \"mr=2 nr=2\" -o up"},
    .run = run,
};
