/* moec verify: every op, and the layer forward and backward, against the oracle.
 *
 * Prints one row per op: how many cases ran and how near the worst element came to its bound. A wrong
 * case is printed at once, with the command that repeats it alone. */
#include "cli.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json_text.h"
#include "setting.h"
#include "verify.h"

/* What all cases of one op came to. */
typedef struct tally {
    char op[32], target[32], where[64], skipped[256];
    int64_t cases, wrong;
    double worst, error;
} tally;

enum { MOST_TALLIES = MOEC_OP_COUNT + 1, SHOWN = 8 /* wrong cases of an op that are printed */ };

typedef struct session {
    const cli_call *call;
    const char *device;     /* as the user named it */
    const char *substitute; /* what runs in place of the machine; NULL: the machine */
    tally tallies[MOST_TALLIES];
    int count;
    int64_t cases, wrong, skipped;
    double apart;           /* from --against: largest distance / both bounds */
    json_t *faults;
} session;

static tally *tally_of(session *s, const char *op) {
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->tallies[i].op, op)) return &s->tallies[i];
    if (s->count == MOST_TALLIES) return &s->tallies[MOST_TALLIES - 1];
    tally *t = &s->tallies[s->count++];
    snprintf(t->op, sizeof t->op, "%s", op);
    return t;
}

static void print_fault(session *s, const moec_verify_row *row) {
    static const char *const kept[] = {"level", "against"}; /* what belongs to the call, not to the case */
    char command[8192];
    moec_verify_command(row, s->device, command, sizeof command);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        size_t n = strlen(command);
        if (cli_given(s->call, kept[i]))
            snprintf(command + n, sizeof command - n, " --%s %s", kept[i], cli_text(s->call, kept[i]));
    }
    if (s->call->json) {
        json_array_append_new(s->faults, json_pack("{s:s, s:o, s:o}", "op", row->op, "fault",
                                                   moec_json_text(row->verdict->fault), "command",
                                                   moec_json_text(command)));
        return;
    }
    printf("WRONG %s%s%s%s: %s\n  %s\n", row->op, *row->note ? " (" : "", row->note,
           *row->note ? ")" : "", row->verdict->fault, command);
    fflush(stdout);
}

static void take_row(void *user, const moec_verify_row *row) {
    session *s = user;
    tally *t = tally_of(s, row->op);
    snprintf(t->target, sizeof t->target, "%s", row->target);
    if (*row->skipped) {
        snprintf(t->skipped, sizeof t->skipped, "%.*s", (int)strcspn(row->skipped, "\n"), row->skipped);
        s->skipped++;
        return;
    }
    t->cases++;
    s->cases++;
    if (row->verdict->apart > s->apart) s->apart = row->verdict->apart;
    if (row->verdict->worst >= t->worst) {
        t->worst = row->verdict->worst;
        t->error = row->verdict->error;
        snprintf(t->where, sizeof t->where, "%s", row->verdict->where);
    }
    if (!*row->verdict->fault) return;
    s->wrong++;
    if (t->wrong++ < SHOWN) print_fault(s, row);
    else if (t->wrong == SHOWN + 1 && !s->call->json) printf("... more of %s: see the table\n", row->op);
}

/* ---- output ---- */

static void print_table(const session *s) {
    printf("%-14s %-12s %6s %6s  %11s  %11s  %s\n", "op", "target", "cases", "wrong", "worst/bound",
           "|error|", "where");
    for (int i = 0; i < s->count; i++) {
        const tally *t = &s->tallies[i];
        if (!t->cases) {
            printf("%-14s skipped: %s\n", t->op, t->skipped);
            continue;
        }
        printf("%-14s %-12s %6" PRId64 " %6" PRId64 "  %11.4f  %11.3g  %s\n", t->op, t->target, t->cases,
               t->wrong, t->worst, t->error, t->where);
    }
    if (cli_given(s->call, "against"))
        printf("against %s: apart by at most %.3f of both bounds together\n", cli_text(s->call, "against"), s->apart);
    printf("%" PRId64 " cases, %" PRId64 " wrong, %" PRId64 " ops skipped\n", s->cases, s->wrong, s->skipped);
}

static void print_json(session *s, json_t *settings) {
    json_t *ops = json_array();
    for (int i = 0; i < s->count; i++) {
        const tally *t = &s->tallies[i];
        json_array_append_new(
            ops, json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:s, s:s}", "op", t->op, "target", t->target,
                           "cases", (json_int_t)t->cases, "wrong", (json_int_t)t->wrong, "worst",
                           t->worst, "error", t->error, "where", t->where, "skipped",
                           t->cases ? "" : t->skipped));
    }
    if (s->substitute) json_object_set_new(settings, "substitute", json_string(s->substitute));
    json_object_set_new(settings, "ops", ops);
    json_object_set(settings, "faults", s->faults);
    json_object_set_new(settings, "cases", json_integer(s->cases));
    json_object_set_new(settings, "wrong", json_integer(s->wrong));
    if (cli_given(s->call, "against")) json_object_set_new(settings, "apart", json_real(s->apart));
    cli_print_json(settings);
}

/* ---- a kernel that crashes: say which case it was ---- */

static char running[1024];

static void crashed(int signal_number) {
    static const char head[] = "\nmoec verify: a kernel crashed; the spec was:\n  ";
    if (write(STDERR_FILENO, head, sizeof head - 1) < 0 ||
        write(STDERR_FILENO, running, strlen(running)) < 0)
        _exit(1);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void watch(const session *s, const moec_spec *spec, uint64_t seed) {
    char text[MOEC_SPEC_BYTES];
    moec_spec_print(spec, NULL, text, sizeof text);
    snprintf(running, sizeof running, "moec verify %.700s -t %s --seed %" PRIu64 "\n", text, s->device, seed);
    signal(SIGSEGV, crashed);
    signal(SIGBUS, crashed);
    signal(SIGILL, crashed);
    signal(SIGFPE, crashed);
}

/* ---- the verb ---- */

static moec_status verify_random(session *s, moec_device *device, moec_verify_options o, moec_error *err) {
    int64_t n = cli_int(s->call, "random");
    uint64_t first = (uint64_t)cli_int(s->call, "seed");
    bool any_T = cli_given(s->call, "tokens"), any_routing = cli_given(s->call, "routing");
    cli_progress progress = {.what = "verify", .total = n};
    for (int64_t i = 0; i < n; i++) {
        moec_spec spec;
        int64_t T;
        const char *routing;
        char text[MOEC_SPEC_BYTES];
        o.seed = first + (uint64_t)i;
        o.layer_only = o.seed % 4 != 0; /* the dense helpers have few keys: one spec in four */
        moec_verify_random(o.seed, &spec, &T, &routing);
        if (!any_T) o.tokens = T;
        if (!any_routing) o.routing = routing;
        moec_spec_print(&spec, NULL, text, sizeof text);
        watch(s, &spec, o.seed);
        moec_status rc = moec_verify_spec(device, &spec, &o, err);
        if (rc) return moec_context(err, rc, "random spec of seed %" PRIu64 ": %s", o.seed, text);
        cli_progress_step(&progress, text);
    }
    cli_progress_end(&progress);
    return MOEC_OK;
}

static moec_status check_options(const cli_call *call, const moec_verify_options *o, moec_error *err) {
    struct stat st;
    if (o->config && !o->op) return cli_usage(call, err, "--config belongs to one --op");
    if (o->op && strcmp(o->op, "layer") && !moec_op_find(o->op)) return cli_no_op(o->op, err);
    if (cli_given(call, "random") && !cli_int(call, "random"))
        return cli_usage(call, err, "--random 0: at least one spec");
    if (!o->against || (!stat(o->against, &st) && S_ISDIR(st.st_mode))) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_IO, "--against %s: there is no such folder", o->against);
    return moec_hint(err, rc, "the same command with --dump %s and another target writes it", o->against);
}

static moec_status run_with(session *s, moec_device *device, moec_error *err) {
    const cli_call *call = s->call;
    bool random = cli_given(call, "random");
    moec_spec spec;
    if (!random) MOEC_TRY(cli_spec(call, 0, &spec, err));
    else if (call->operand_count) return cli_usage(call, err, "--random makes its own specs");
    moec_verify_options o = {
        .op = cli_text(call, "op"), .config = cli_text(call, "config"), .report = take_row, .user = s,
        .seed = (uint64_t)cli_int(call, "seed"), .variants = 3,
        .tokens = cli_given(call, "tokens") ? cli_int(call, "tokens") : -1,
        .routing = cli_given(call, "routing") ? cli_text(call, "routing") : NULL,
        .random_configs = cli_flag(call, "random-configs") ? 4 : 0,
        .dump = cli_given(call, "dump") ? cli_text(call, "dump") : NULL,
        .against = cli_given(call, "against") ? cli_text(call, "against") : NULL,
    };
    if (cli_given(call, "variant")) {
        o.variant = (int)cli_int(call, "variant");
        o.variants = 1;
    }
    MOEC_TRY(check_options(call, &o, err));
    cli_settings(call, random ? NULL : &spec, device->target->name);
    if (!call->json && moec_cpu_emulates(device->target))
        printf("# %s: tile instructions are emulated in plain C on this machine\n", device->target->name);
    if (!call->json && device->ops->substitute) printf("# %s\n", device->ops->substitute);
    if (random) return verify_random(s, device, o, err);
    watch(s, &spec, o.seed);
    return moec_verify_spec(device, &spec, &o, err);
}

/* What stands in for a machine that is not here: the setting that asks for it. */
static const struct { const char *target, *setting; } stand_ins[] = {
    {"cpu-amx", "MOEC_EMULATE_TILES"}, {"gfx942", "MOEC_GCN"}, {"gfx90a", "MOEC_GCN"},
};

/* --level: which of the two stand-ins for an AMD GPU. */
static moec_status choose_level(const cli_call *call, moec_error *err) {
    static const struct { const char *level, *setting; } levels[] = {{"L1", "shim"}, {"L2", "1"}};
    const char *wish = cli_given(call, "level") ? cli_text(call, "level") : NULL;
    const moec_target *target = moec_target_find(cli_text(call, "target"));
    if (!wish) return MOEC_OK;
    if (!target || strcmp(target->family, "hip"))
        return cli_usage(call, err, "--level is about AMD targets: -t gfx90a or gfx942");
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (!strcmp(wish, levels[i].level)) return setenv("MOEC_GCN", levels[i].setting, 1), MOEC_OK;
    return cli_usage(call, err, "--level is L1 or L2");
}

/* The machine itself, or where there is none, the strongest proof that does without it. */
static moec_status open_strongest(const cli_call *call, moec_device **device, moec_error *err) {
    moec_error second = {0};
    moec_status rc = cli_device(call, device, err);
    for (size_t i = 0; rc && i < sizeof stand_ins / sizeof *stand_ins; i++) {
        if (strcmp(stand_ins[i].target, cli_text(call, "target")) || moec_setting(stand_ins[i].setting)) continue;
        setenv(stand_ins[i].setting, "1", 1);
        if (!cli_device(call, device, &second)) return MOEC_OK;
        return moec_hint(err, rc, "without the machine: %.500s", second.text);
    }
    return rc;
}

static moec_status run(cli_call *call, moec_error *err) {
    session *s = calloc(1, sizeof *s);
    moec_device *device = NULL;
    if (!s) return moec_fail(err, MOEC_E_NOMEM, "out of memory: verify");
    *s = (session){.call = call, .device = cli_text(call, "target"), .faults = json_array()};
    moec_status rc = choose_level(call, err);
    if (!rc) rc = open_strongest(call, &device, err);
    if (!rc) s->substitute = device->ops->substitute;
    if (!rc) rc = run_with(s, device, err);
    if (!rc && call->json) print_json(s, cli_settings_json(call, NULL, device->target->name));
    if (!rc && !call->json) print_table(s);
    if (!rc && s->wrong)
        rc = moec_fail(err, MOEC_E_MISMATCH, "%" PRId64 " of %" PRId64 " cases are wrong", s->wrong,
                       s->cases);
    if (!rc && !s->cases)
        rc = moec_fail(err, MOEC_E_UNSUPPORTED, "nothing was verified: every op was skipped");
    json_decref(s->faults);
    moec_device_close(device);
    free(s);
    return rc;
}

static const cli_option options[] = {
    {"tokens", 0, CLI_BIG, "T", NULL, "tokens of a batch; default: 0, 1, 7, 127 and 1000 in turn"},
    {"routing", 0, CLI_TEXT, "HOW", NULL,
     "uniform, zipf:S, hot:P, empty:P (fractions), file:PATH; default: the first four in turn"},
    {"op", 0, CLI_TEXT, "OP", NULL, "only this op, or \"layer\""},
    {"random", 0, CLI_INT, "N", NULL, "N random specs, from --seed on, instead of SPEC"},
    {"config", 0, CLI_TEXT, "TEXT", NULL, "config of --op, \"mr=6 nr=4\"; default: the descriptor's"},
    {"random-configs", 0, CLI_FLAG, "", NULL, "also four random legal configs of each op"},
    {"level", 0, CLI_TEXT, "L", NULL,
     "without the AMD GPU of -t: L1 runs the sources on this CPU, L2 (default) the compiled code"},
    {"dump", 0, CLI_TEXT, "DIR", NULL, "writes every case's answers to DIR"},
    {"against", 0, CLI_TEXT, "DIR", NULL, "answers must agree with those that another target wrote to DIR"},
    {"variant", 0, CLI_INT, "V", NULL, "0: every optional argument given; else some dropped, by seed; 2: a NaN in one input"},
    {0},
};

const cli_verb cli_verify_verb = {
    .name = "verify", .summary = "checks every op and the whole layer against the oracle",
    .operands = "[SPEC]", .common = "target threads seed", .options = options,
    .examples = {"moec verify E=8 K=2 H=64 F=96 dtype=bf16", "moec verify --random 200 -t cpu-avx2",
                 "moec verify E=64 K=6 H=128 F=64 --op up --tokens 127 --routing hot:0.9",
                 "moec verify --random 5 -t gfx942 --level L1",
                 "moec verify E=8 K=2 H=64 F=96 -t sm_90a --against DIR", NULL},
    .run = run,
};
