/* Compiles into a scratch directory, reads the metadata, applies the formulas. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "code_object.h"
#include "fs.h"
#include "ceiling.h"
#include "model_walk.h"
#include "toolchain.h"

enum { SIMDS = 4, WAVES_DOWN = 2, WAVES_ACROSS = 2, FILE_REGISTERS = 512, MOST_WAVES = 8,
       LDS_BYTES = 65536 };
enum { LDS_RATE = 128, CACHE_RATE = 64 };

static const struct { const char *target; double mfma, peak, memory; } machines[] = {
    {"gfx942", 2048, 1307e12, 5.3e12}, /* FLOP a clock and CU, FLOP/s, bytes/s */
    {"gfx90a", 1024, 191.5e12, 1.6e12},
};

static int64_t tunable(const moec_config *config, const char *name) {
    for (int i = 0; i < config->count; i++)
        if (!strcmp(config->item[i].name, name)) return config->item[i].value;
    return 0;
}

/* The share of a lone block's time in which the matrix units work: 0 where the compiler shows no assembly. */
static moec_status walk(const moec_kernel *k, const char *dir, double rate, double *share, moec_error *err) {
    char path[64], *text = NULL;
    size_t bytes = 0;
    moec_walk w;
    moec_error ignored = {0};
    snprintf(path, sizeof path, "%s/k.s", dir);
    moec_status rc = moec_hip_assembly(k->target, dir, "k.hip", "k.s", &ignored);
    if (rc) {
        unlink(path);
        return rc == MOEC_E_UNSUPPORTED ? MOEC_OK : moec_fail(err, rc, "%s", ignored.text);
    }
    rc = moec_file_read(path, &text, &bytes, err);
    if (!rc && moec_walk_loop(text, rate, &w)) *share = w.busy / w.clocks;
    free(text);
    unlink(path);
    return rc;
}

/* What the compiler makes of a kernel; `rate`: FLOP a clock and compute unit, 0 without matrix instructions. */
static moec_status registers_of(const moec_kernel *k, double rate, moec_model_row *out, moec_error *err) {
    char dir[] = "/tmp/moec-model.XXXXXX", source[64], binary[64], log[64];
    moec_code_object o = {0};
    char *image = NULL;
    size_t bytes = 0;
    if (!mkdtemp(dir)) return moec_fail(err, MOEC_E_IO, "cannot make a directory under /tmp");
    snprintf(source, sizeof source, "%s/k.hip", dir);
    snprintf(binary, sizeof binary, "%s/k.co", dir);
    snprintf(log, sizeof log, "%s/log.txt", dir);
    double start = moec_seconds();
    moec_status rc = moec_file_write(source, k->source, k->source_bytes, false, err);
    if (!rc) rc = moec_toolchain_find("hip")->compile(k->target, dir, "k.hip", "k.co", err);
    out->compile_s = moec_seconds() - start;
    if (!rc) rc = moec_file_read(binary, &image, &bytes, err);
    if (!rc) rc = moec_code_object_read(image, bytes, k->target, &o, err);
    out->registers = o.vgprs;
    out->lds_bytes = o.lds_bytes;
    out->spills = o.vgpr_spills + o.sgpr_spills;
    if (!rc && rate > 0) rc = walk(k, dir, rate, &out->mfma_alone, err);
    free(image);
    unlink(source), unlink(binary), unlink(log), rmdir(dir);
    return rc;
}

static void shares(const moec_kernel *k, double rate, moec_model_row *out) {
    double bm = (double)tunable(&k->config, "bm"), bn = (double)tunable(&k->config, "bn");
    double bk = (double)tunable(&k->config, "bk"), step = (bm + bn) * bk * 2; /* bytes */
    double mfma = 2 * bm * bn * bk / rate;
    double reads = SIMDS * (bm / WAVES_DOWN + bn / WAVES_ACROSS) * bk * 2 / LDS_RATE, writes = step / LDS_RATE;
    double cache = step / CACHE_RATE;
    int64_t by_registers = FILE_REGISTERS / ((out->registers + 7) / 8 * 8), by_lds = out->lds_bytes ? LDS_BYTES / out->lds_bytes : MOST_WAVES;
    if (by_registers > MOST_WAVES) by_registers = MOST_WAVES;
    out->blocks = (int)(by_registers < by_lds ? by_registers : by_lds);
    if (out->blocks < 1) out->blocks = 1;
    double busiest = mfma > reads + writes ? mfma : reads + writes;
    if (cache > busiest) busiest = cache;
    double alone = out->mfma_alone > 0 ? mfma / out->mfma_alone : busiest;
    double time = out->blocks * busiest > alone ? out->blocks * busiest : alone;
    out->mfma = out->blocks * mfma / time;
    out->lds = out->blocks * (reads + writes) / time;
    out->cache = out->blocks * cache / time;
}

moec_status moec_model(moec_gen *gen, const moec_target *target, const moec_layer_row *row,
                       const moec_spec *spec, int64_t tokens, moec_model_row *out, moec_error *err) {
    moec_spec own = moec_layer_row_spec(row, spec);
    moec_request request = {.op = moec_op_get(row->op), .spec = &own, .target = target, .tokens = tokens};
    moec_sizes sizes = {.spec = &own, .T = tokens, .R = tokens * own.K, .sms = 1, .threads = 1};
    moec_kernel k = {0};
    int64_t flops = 0, bytes = 0;
    size_t m = 0;
    *out = (moec_model_row){0};
    while (m < sizeof machines / sizeof *machines && strcmp(machines[m].target, target->name)) m++;
    if (m == sizeof machines / sizeof *machines)
        return moec_fail(err, MOEC_E_UNSUPPORTED, "there is no model of %s, only of gfx942 and gfx90a",
                         target->name);
    MOEC_TRY(moec_emit(gen, &request, &k, err));
    snprintf(out->name, sizeof out->name, "%s", row->name);
    moec_config_print(&k.config, out->config, sizeof out->config);
    double rate = tunable(&k.config, "mi") ? machines[m].mfma : 0;
    moec_status rc = registers_of(&k, rate, out, err);
    if (!rc) rc = moec_expr(k.flops, &sizes, &flops, err);
    if (!rc) rc = moec_expr(k.bytes, &sizes, &bytes, err);
    out->flops = (double)flops;
    out->bytes = (double)bytes;
    double compute = out->flops / machines[m].peak, memory = out->bytes / machines[m].memory;
    if (rate == 0) compute = 0; /* no matrix units */
    else if (!rc) shares(&k, rate, out);
    out->roofline_ms = 1e3 * (compute > memory ? compute : memory);
    moec_kernel_free(&k);
    return rc;
}
