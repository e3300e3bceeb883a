/* moec spec: what a spec means: canonical text, sizes, work and memory, without any device. */
#include "cli.h"

#include <inttypes.h>
#include <stdio.h>

#include "routing.h"
#include "train/config.h"

/* One line of the answer: name, value, unit, how it is computed. */
typedef struct fact { const char *name; double value; const char *unit, *how; } fact;

enum { FACTS = 16 };

static int facts_of(const moec_spec *s, double T, double ranks, fact f[FACTS]) {
    moec_routing none;
    double E = (double)s->E, K = (double)s->K, H = (double)s->H, F = (double)s->F;
    double U = (double)moec_spec_U(s), e = s->dtype == MOEC_BF16 ? 2 : 4;
    double S = (double)s->shared, US = moec_spec_gated(s) ? 2 * S : S;
    double expert = U * H + H * F + (s->bias ? U + H : 0), shared = US * H + H * S;
    double mine = expert * E / ranks + shared;
    double forward = 2 * K * (U * H + H * F) + 2 * shared;
    double g = s->wgrad == MOEC_WGRAD_F32 ? 4 : e;
    double routing = (double)moec_routing_place(s, (int64_t)T, NULL, &none);
    fact all[] = {
        {"parameters",        expert * E + shared, "", "E*(U*H + H*F) + shared"},
        {"per expert",        expert,              "", "U*H + H*F, U rows of W1"},
        {"active per token",  K * expert + shared, "", "K experts and the shared one"},
        {"router",            E * H,               "", "E*H, held by the model, not the layer"},
        {"forward",           forward * T,         "FLOP", "2*T*(K*(U*H + H*F) + shared)"},
        {"backward",          2 * forward * T,     "FLOP", "twice forward: two GEMMs for each one"},
        {"weights a pass",    (expert * E + shared) * e, "B", "every weight read once"},
        {"rows a pass",       T * e * (2 * H + K * (H + U + 2 * F + H)), "B",
         "forward: x, gathered x, Hpre, A twice, Y, out"},
        {"weights a rank",    mine * e,            "B", "expert parameters / ranks + shared"},
        {"gradients a rank",  mine * g,            "B", "wgrad type"},
        {"optimizer a rank",  mine * 12,           "B", "f32 master, m, v"},
        {"saved",             T * (K * U + US) * e + routing, "B",
         "Hpre and routing of T tokens (x is the caller's)"},
    };
    int count = (int)(sizeof all / sizeof *all);
    for (int i = 0; i < count; i++) f[i] = all[i];
    return count;
}

/* 123456789 -> "123.5 M" */
static void human(double v, char *buf, size_t bytes) {
    const char *prefix = " kMGTPE";
    int i = 0;
    while (v >= 10000 && prefix[i + 1]) v /= 1000, i++;
    snprintf(buf, bytes, i ? "%.4g %c" : "%.0f%c", v, i ? prefix[i] : ' ');
}

static void print_text(const fact *f, int count) {
    for (int i = 0; i < count; i++) {
        char value[32];
        human(f[i].value, value, sizeof value);
        printf("%-18s %10s%-5s %s\n", f[i].name, value, f[i].unit, f[i].how);
    }
}

static json_t *print_facts(const fact *f, int count) {
    json_t *object = json_object();
    for (int i = 0; i < count; i++)
        json_object_set_new(object, f[i].name, json_integer((json_int_t)f[i].value));
    return object;
}

/* A whole decoder of a model file. T is the length of a sequence. */
static int facts_of_model(const train_config *c, double T, double ranks, fact f[FACTS]) {
    model_size size;
    config_model_size(c, (int64_t)T, &size);
    double layers = (double)(c->layers - c->dense), total = (double)size.total;
    double experts = layers * (double)size.layer_experts, mine = total - experts + experts / ranks;
    double e = c->spec.dtype == MOEC_BF16 ? 2 : 0; /* in f32 the master weights are the weights */
    fact all[] = {
        {"parameters", total, "", "all tensors of the checkpoint"},
        {"active per token", (double)size.active, "",
         "without the experts a token does not choose"},
        {"in experts", experts, "", "layers with experts * E*(U*H + H*F)"},
        {"forward per token", size.flops_token, "FLOP",
         "2 per active weight, attention over T tokens"},
        {"training per token", 3 * size.flops_token, "FLOP", "backward is two GEMMs for each one"},
        {"weights a rank", mine * e, "B", "compute copy; experts / ranks, the rest whole"},
        {"gradients a rank", mine * 4, "B", "f32"},
        {"optimizer a rank", mine * 12, "B", "f32 master, m, v"},
        {"checkpoint", total * 12, "B", "f32 master, m, v of everything"},
    };
    int count = (int)(sizeof all / sizeof *all);
    for (int i = 0; i < count; i++) f[i] = all[i];
    return count;
}

static moec_status run_model(cli_call *call, moec_error *err) {
    train_config config;
    fact facts[FACTS];
    int64_t ranks = cli_int(call, "ranks");
    /* A model file alone, or the training config that holds one. */
    moec_status rc = config_load_model(call->operands[0], &config, err);
    if (rc && rc != MOEC_E_IO && !config_load(call->operands[0], NULL, 0, &config, NULL))
        rc = MOEC_OK;
    if (rc) return rc;
    if (ranks < 1 || config.spec.E % ranks)
        return cli_usage(call, err, "--ranks %" PRId64 " does not divide E=%" PRId64, ranks,
                         config.spec.E);
    int count = facts_of_model(&config, (double)cli_int(call, "tokens"), (double)ranks, facts);
    cli_settings(call, &config.spec, NULL);
    if (call->json)
        cli_print_json(json_pack("{s:o, s:o}", "settings",
                                 cli_settings_json(call, &config.spec, NULL), "facts",
                                 print_facts(facts, count)));
    else
        print_text(facts, count);
    return MOEC_OK;
}

static moec_status run(cli_call *call, moec_error *err) {
    bool file = call->operand_count && config_is_file(call->operands[0]);
    if (file && call->operand_count > 1) return cli_usage(call, err, "a model file stands alone, without key=value");
    if (file) return run_model(call, err);
    moec_spec spec;
    fact facts[FACTS];
    int64_t T = cli_int(call, "tokens"), ranks = cli_int(call, "ranks");
    MOEC_TRY(cli_spec(call, 0, &spec, err));
    if (ranks < 1 || spec.E % ranks)
        return cli_usage(call, err, "--ranks %" PRId64 " does not divide E=%" PRId64, ranks,
                         spec.E);
    if (T > moec_routing_most_tokens(&spec))
        return cli_usage(call, err, "--tokens is at most %" PRId64 " for this K",
                         moec_routing_most_tokens(&spec));
    int count = facts_of(&spec, (double)T, (double)ranks, facts);
    cli_settings(call, &spec, NULL);
    if (call->json)
        cli_print_json(json_pack("{s:o, s:o}", "settings", cli_settings_json(call, &spec, NULL),
                                 "facts", print_facts(facts, count)));
    else
        print_text(facts, count);
    return MOEC_OK;
}

static const cli_option options[] = {
    {"ranks", 0, CLI_INT, "N", "1", "expert parallelism: ranks that share the experts"},
    {0},
};

const cli_verb cli_spec_verb = {
    .name = "spec", .summary = "canonical text, parameters, flops, bytes, memory of a rank",
    .operands = "SPEC|MODEL.lua", .common = "tokens", .options = options,
    .examples = {"moec spec E=64 K=6 H=2048 F=1408",
                 "moec spec E=8 K=2 H=4096 F=14336 --tokens 8192 --ranks 8",
                 "moec spec \"E=128 K=8 H=2048 F=768 dtype=f32\" --json",
                 "moec spec examples/models/qwen3-30b-a3b.lua --tokens 4096"},
    .run = run,
};
