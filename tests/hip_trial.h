/* hip_trial.h: what the tests of the HIP target share: devices under the interpreter, one kernel emitted,
 * edited and compiled to a file of its own, run on one case. */
#ifndef MOEC_HIP_TRIAL_H
#define MOEC_HIP_TRIAL_H

#include "folder.h"

#include "dl_gcn.h"
#include "gcn/device_gcn.h"
#include "gcn/gcn.h"
#include "toolchain.h"
#include "verify.h"

static const char *const machines[] = {"gfx942", "gfx90a"};
enum { MACHINES = 2 };

/* ---- devices ---- */

static moec_device *device_of(int machine) {
    static moec_device *devices[MACHINES];
    static char why[512];
    moec_error err = {0};
    char id[MOEC_TOOLCHAIN_ID_BYTES];
    if (devices[machine] || *why) goto done;
    setenv("MOEC_GCN", "build/libmoec-gcn.so", 1);
    moec_status rc = moec_toolchain_find("hip")->identify(moec_target_find(machines[machine]), id, &err);
    gcn_object *none = NULL;
    if (!rc && gcn_open("", 0, &none, err.text, sizeof err.text) == GCN_E_LLVM) rc = MOEC_E_TOOL;
    if (!rc) rc = moec_device_open(machines[machine], 0, &devices[machine], &err);
    if (rc) snprintf(why, sizeof why, "%.500s", err.text);
done:
    if (!devices[machine]) snprintf(t_skipped, sizeof t_skipped, "%.*s", (int)strcspn(why, "\n"), why);
    return devices[machine];
}

static moec_spec spec_of(const char *text) {
    moec_spec s;
    moec_error err = {0};
    if (moec_spec_parse(text, &s, &err)) T_FAIL("%s", err.text);
    return s;
}

/* ---- one kernel on one case ---- */

typedef struct setup { const char *op, *spec, *config; int64_t T; } setup;

/* `text` with the first `old` replaced; NULL when `old` does not occur. */
static char *edited(const char *text, const char *old, const char *new) {
    const char *at = strstr(text, old);
    if (!at) return NULL;
    size_t bytes = strlen(text) + strlen(new) + 1;
    char *out = malloc(bytes);
    snprintf(out, bytes, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    return out;
}

/* Emits, edits (old NULL: not at all) and compiles to DIR/k.co; the kernel without its code. */
static moec_module *compile(moec_device *device, const setup *s, const char *old, const char *new) {
    moec_error err = {0};
    moec_spec spec = spec_of(s->spec);
    moec_request request = {.op = moec_op_find(s->op), .spec = &spec, .target = device->target};
    moec_config config;
    moec_module *m = calloc(1, sizeof *m);
    moec_status rc = device->gen ? MOEC_OK : moec_gen_new(&device->gen, &err);
    if (!rc && s->config) rc = moec_config_parse(device->gen, &request, s->config, &config, &err);
    if (s->config) request.config = &config;
    if (!rc) rc = moec_emit(device->gen, &request, &m->kernel, &err);
    char *text = rc ? NULL : edited(m->kernel.source, old ? old : "\n", old ? new : "\n");
    if (!rc && !text) rc = moec_fail(&err, MOEC_E_TEMPLATE, "the text \"%s\" is not there any more", old ? old : "");
    if (!rc && !put_file("k.hip", text, strlen(text))) rc = MOEC_E_IO;
    if (!rc) rc = moec_toolchain_find("hip")->compile(device->target, dir, "k.hip", "k.co", &err);
    free(text);
    if (rc) T_FAIL("%s: %s", s->op, err.text);
    if (!rc) return m;
    moec_kernel_free(&m->kernel);
    free(m);
    return NULL;
}

static void drop(moec_module *m) {
    if (m) moec_kernel_free(&m->kernel);
    free(m);
}

/* Inputs and the oracle's answers; free with moec_case_free also when it failed. */
static bool make_case(moec_device *device, const setup *s, moec_case *c) {
    moec_error err = {0};
    moec_pattern pattern;
    *c = (moec_case){.op = moec_op_find(s->op), .spec = spec_of(s->spec), .T = s->T, .seed = 4};
    moec_status rc = moec_pattern_parse("uniform", &pattern, &err);
    if (!rc) rc = moec_case_make(c, &pattern, &err);
    if (!rc) rc = moec_case_solve(c, device->target, &err);
    if (rc) T_FAIL("%s: %s", s->op, err.text);
    return !rc;
}

/* Loads DIR/k.co into m, runs the case, unloads. The fault found, "" when none: findings of the
 * interpreter count as faults. */
static void run_case(moec_device *device, const moec_case *c, moec_module *m, char fault[512]) {
    moec_error err = {0};
    moec_verdict verdict = {0};
    moec_status rc = device->ops->load(device, in_dir("k.co"), m, &err);
    if (!rc) {
        rc = moec_trial(device, m, c, &verdict, &err);
        device->ops->unload(device, m);
    }
    snprintf(fault, 512, "%.500s", rc ? err.text : verdict.fault);
}

/* ---- the compiled code ---- */

typedef struct object { unsigned char bytes[1 << 18]; size_t n; } object;

static bool read_object(object *o) {
    FILE *f = fopen(in_dir("k.co"), "rb");
    o->n = f ? fread(o->bytes, 1, sizeof o->bytes, f) : 0;
    if (f) fclose(f);
    return o->n > 0 && o->n < sizeof o->bytes;
}

#endif
