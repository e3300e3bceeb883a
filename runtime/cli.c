/* The program's main: the verb table, option parsing, help, errors and exit codes.
 *
 * Adding a verb: a file cli_VERB.c with a cli_verb, a row here and in build.ninja. */
#include "cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json_text.h"

#define VERBS(X) \
    X(doctor)    \
    X(spec)      \
    X(gen)       \
    X(verify)    \
    X(bench)     \
    X(tune)      \
    X(train)     \
    X(report)    \
    X(ckpt)

#define X(name) extern const cli_verb cli_##name##_verb;
VERBS(X)
#undef X

static const cli_verb *const verbs[] = {
#define X(name) &cli_##name##_verb,
    VERBS(X)
#undef X
};
enum { VERB_COUNT = sizeof verbs / sizeof *verbs };

/* Options that several verbs share; a verb takes those that it names. */
static const cli_option common[] = {
    {"target",  't', CLI_TEXT, "TARGET", "cpu",
     "machine to run on or to write for: cpu, cpu-avx512, sm_90a:1 ..."},
    {"threads", 0,   CLI_INT,  "N",      "0", "CPU worker threads, 0 for one per CPU"},
    {"tokens",  0,   CLI_BIG,  "T",      "1024", "tokens of a batch"},
    {"routing", 0,   CLI_TEXT, "HOW",    "uniform",
     "which experts tokens choose: uniform, zipf:S, hot:P, empty:P (fractions), file:PATH"},
    {"seed",    0,   CLI_BIG,  "S",      "1", "of all random numbers"},
};
static const cli_option always[] = {
    {"json", 0,   CLI_FLAG, "", NULL, "print one JSON value"},
    {"help", 'h', CLI_FLAG, "", NULL, "this text"},
};
enum { COMMON_COUNT = sizeof common / sizeof *common, ALWAYS_COUNT = 2 };

static const cli_verb *find_verb(const char *name) {
    for (int i = 0; i < VERB_COUNT; i++)
        if (!strcmp(verbs[i]->name, name)) return verbs[i];
    return NULL;
}

/* ---- help ---- */

static void print_help(FILE *out) {
    fprintf(out,
            "moec %s: a compiler for Mixture-of-Experts layers\n\nusage: moec VERB [options]\n\n",
            moec_version());
    for (int i = 0; i < VERB_COUNT; i++)
        fprintf(out, "  %-8s %s\n", verbs[i]->name, verbs[i]->summary);
    fprintf(out,
            "\nmoec VERB --help shows a verb's options and examples. Exit codes: 0 ok, 1 failure, "
            "2 usage,\n3 wrong result, 4 device or compiler missing, 5 timeout, 75 retry (a peer "
            "failed).\n");
}

static void print_option(const cli_option *o) {
    char left[64], letter[8] = "    ";
    if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(left, sizeof left, "%s--%s %s", letter, o->name, o->value);
    printf("  %-24s %s", left, o->doc);
    if (o->dflt && *o->dflt) printf(" (default %s)", o->dflt);
    putchar('\n');
}

static void print_key(void *user, const char *name, const char *doc, const char *dflt) {
    (void)user;
    printf("  %-10s %s (default %s)\n", name, doc, dflt);
}

static void print_verb_help(const cli_call *call) {
    const cli_verb *v = call->verb;
    printf("moec %s: %s\n\nusage: moec %s [options] %s\n\n", v->name, v->summary, v->name,
           v->operands);
    for (int i = 0; i < call->option_count; i++) print_option(call->options[i]);
    if (strstr(v->operands, "SPEC")) {
        printf("\nA SPEC is key=value words:\n");
        moec_spec_keys(print_key, NULL);
    }
    printf("\nexamples:\n");
    for (int i = 0; v->examples[i]; i++) printf("  %s\n", v->examples[i]);
}

/* ---- parsing ---- */

static bool names(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += n)
        if ((at == list || at[-1] == ' ') && (at[n] == 0 || at[n] == ' ')) return true;
    return false;
}

static void take_option(cli_call *call, const cli_option *option) {
    if (call->option_count == CLI_MAX_OPTIONS) abort(); /* a verb's table is too long */
    call->values[call->option_count] = option->dflt;
    call->options[call->option_count++] = option;
}

static void take_options(cli_call *call) {
    for (const cli_option *o = call->verb->options; o && o->name; o++) take_option(call, o);
    for (int i = 0; i < COMMON_COUNT; i++)
        if (names(call->verb->common, common[i].name)) take_option(call, &common[i]);
    for (int i = 0; i < ALWAYS_COUNT; i++) take_option(call, &always[i]);
}

static int option_index(const cli_call *call, const char *name, size_t length, char letter) {
    for (int i = 0; i < call->option_count; i++) {
        const cli_option *o = call->options[i];
        if (letter ? o->letter == letter
                   : strlen(o->name) == length && !memcmp(o->name, name, length))
            return i;
    }
    return -1;
}

moec_status cli_usage(const cli_call *call, moec_error *err, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    moec_status rc = moec_fail(err, MOEC_E_SPEC, "%s", text);
    return moec_hint(err, rc, "moec %s --help", call->verb->name);
}

static moec_status check_value(const cli_call *call, const cli_option *o, const char *value,
                               moec_error *err) {
    char *end = NULL;
    if (o->kind == CLI_INT || o->kind == CLI_BIG) {
        long long v = strtoll(value, &end, 10), most = o->kind == CLI_INT ? INT32_MAX : INT64_C(1) << 40;
        if (end == value || *end || v < 0 || v > most)
            return cli_usage(call, err, "--%s %s: expected a whole number from 0 to %lld", o->name, value, most);
    } else if (o->kind == CLI_TEXT) {
        if (!*value) return cli_usage(call, err, "--%s is empty", o->name);
    } else if (o->kind == CLI_REAL) {
        double v = strtod(value, &end);
        if (end == value || *end || !isfinite(v))
            return cli_usage(call, err, "--%s %s: expected a number", o->name, value);
    }
    return MOEC_OK;
}

/* One option at argv[*at]; moves *at past a separate value. */
static moec_status parse_option(cli_call *call, int argc, char **argv, int *at, moec_error *err) {
    const char *word = argv[*at], *equals = NULL;
    bool full = word[1] == '-';
    if (full) equals = strchr(word, '=');
    size_t length = full ? (equals ? (size_t)(equals - word) - 2 : strlen(word) - 2) : 0;
    int i = full ? option_index(call, word + 2, length, 0)
                 : word[2] ? -1 : option_index(call, "", 0, word[1]);
    if (i < 0) return cli_usage(call, err, "unknown option %s", word);
    const cli_option *o = call->options[i];
    const char *value = "1";
    if (o->kind == CLI_FLAG && equals) return cli_usage(call, err, "--%s takes no value", o->name);
    if (o->kind != CLI_FLAG) {
        if (!equals && *at + 1 >= argc) return cli_usage(call, err, "--%s needs a value", o->name);
        value = equals ? equals + 1 : argv[++*at];
    }
    call->values[i] = value;
    call->given[i] = true;
    return check_value(call, o, value, err);
}

static moec_status parse(cli_call *call, int argc, char **argv, moec_error *err) {
    bool operands_only = false;
    for (int i = 0; i < argc; i++) {
        if (!operands_only && !strcmp(argv[i], "--")) {
            operands_only = true;
        } else if (!operands_only && argv[i][0] == '-' && argv[i][1]) {
            MOEC_TRY(parse_option(call, argc, argv, &i, err));
        } else {
            if (call->operand_count == CLI_MAX_OPERANDS)
                return cli_usage(call, err, "more than %d operands", CLI_MAX_OPERANDS);
            call->operands[call->operand_count++] = argv[i];
        }
    }
    call->json = cli_flag(call, "json");
    if (call->operand_count && !*call->verb->operands)
        return cli_usage(call, err, "unexpected operand %s", call->operands[0]);
    return MOEC_OK;
}

/* ---- what verbs ask ---- */

static int must_find(const cli_call *call, const char *name) {
    int i = option_index(call, name, strlen(name), 0);
    if (i < 0) abort(); /* the verb asks for an option that it does not take */
    return i;
}

const char *cli_text(const cli_call *call, const char *name) {
    return call->values[must_find(call, name)];
}

int64_t cli_int(const cli_call *call, const char *name) {
    const char *text = cli_text(call, name);
    return text ? strtoll(text, NULL, 10) : 0;
}

double cli_real(const cli_call *call, const char *name) {
    const char *text = cli_text(call, name);
    return text ? strtod(text, NULL) : 0;
}

bool cli_flag(const cli_call *call, const char *name) { return cli_given(call, name); }
bool cli_given(const cli_call *call, const char *name) {
    return call->given[must_find(call, name)];
}

moec_status cli_spec(const cli_call *call, int from, moec_spec *spec, moec_error *err) {
    char text[2048] = "";
    if (from >= call->operand_count) return cli_usage(call, err, "a SPEC is needed");
    if (!strcmp(call->operands[from], "-")) {
        size_t n = fread(text, 1, sizeof text - 1, stdin);
        while (n && (text[n - 1] == '\n' || text[n - 1] == ' ')) n--;
        text[n] = 0;
        from = call->operand_count;
    }
    for (int i = from; i < call->operand_count; i++) {
        size_t used = strlen(text);
        int n =
            snprintf(text + used, sizeof text - used, "%s%s", used ? " " : "", call->operands[i]);
        if (n < 0 || (size_t)n >= sizeof text - used)
            return cli_usage(call, err, "the SPEC is longer than %zu characters", sizeof text - 1);
    }
    if (!text[strspn(text, " ")]) return cli_usage(call, err, "the SPEC is empty");
    return moec_spec_parse(text, spec, err);
}

moec_status cli_no_op(const char *name, moec_error *err) {
    char names[1024] = "";
    for (moec_op_id i = 0; i < MOEC_OP_COUNT; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), " %s", moec_op_get(i)->name);
    moec_status rc = moec_fail(err, MOEC_E_SPEC, "--op %s: no such op", name);
    return moec_hint(err, rc, "ops:%s", names);
}

moec_status cli_device(const cli_call *call, moec_device **device, moec_error *err) {
    int64_t threads = option_index(call, "threads", 7, 0) < 0 ? 0 : cli_int(call, "threads");
    if (threads > MOEC_MOST_THREADS) return cli_usage(call, err, "--threads is at most %d", MOEC_MOST_THREADS);
    MOEC_TRY(moec_device_open(cli_text(call, "target"), (int)threads, device, err));
    moec_status rc = moec_device_ready(*device, err);
    if (rc) {
        moec_device_close(*device);
        *device = NULL;
    } else if (*moec_device_note(*device)) cli_warn("%s", moec_device_note(*device));
    return rc;
}

/* ---- printing ---- */

static bool shown(const cli_call *call, int i) {
    const char *name = call->options[i]->name;
    return call->values[i] && *call->values[i] && strcmp(name, "json") && strcmp(name, "help") &&
           strcmp(name, "target");
}

void cli_settings(const cli_call *call, const moec_spec *spec, const char *target) {
    char text[MOEC_SPEC_BYTES];
    if (call->json) return;
    printf("# moec %s", call->verb->name);
    if (target) printf(" target=%s", target);
    for (int i = 0; i < call->option_count; i++)
        if (shown(call, i)) printf(" %s=%s", call->options[i]->name, call->values[i]);
    putchar('\n');
    if (!spec) return;
    moec_spec_print(spec, NULL, text, sizeof text);
    printf("# %s\n", text);
}

static json_t *option_json(const cli_option *option, const char *value) {
    if (option->kind == CLI_FLAG) return json_true();
    if (option->kind == CLI_INT || option->kind == CLI_BIG) return json_integer(strtoll(value, NULL, 10));
    if (option->kind == CLI_REAL) return json_real(strtod(value, NULL));
    return moec_json_text(value);
}

json_t *cli_settings_json(const cli_call *call, const moec_spec *spec, const char *target) {
    char text[MOEC_SPEC_BYTES];
    json_t *object = json_object();
    json_object_set_new(object, "verb", json_string(call->verb->name));
    json_object_set_new(object, "version", json_string(moec_version()));
    if (target) json_object_set_new(object, "target", json_string(target));
    for (int i = 0; i < call->option_count; i++)
        if (shown(call, i))
            json_object_set_new(object, call->options[i]->name,
                                option_json(call->options[i], call->values[i]));
    if (spec) {
        moec_spec_print(spec, NULL, text, sizeof text);
        json_object_set_new(object, "spec", json_string(text));
    }
    return object;
}

void cli_print_json(json_t *value) {
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(value);
}

void cli_warn(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("moec: warning: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

void cli_progress_step(cli_progress *p, const char *now) {
    enum { WIDTH = 30 };
    p->done++;
    if (p->total <= 0) return;
    if (isatty(STDERR_FILENO)) {
        int filled = (int)(p->done * WIDTH / p->total);
        fprintf(stderr, "\r%s [%.*s%*s] %" PRId64 "/%" PRId64 " %-40.40s", p->what, filled,
                "##############################", WIDTH - filled, "", p->done, p->total, now);
        return;
    }
    int tenth = (int)(p->done * 10 / p->total);
    if (tenth == p->tenth) return;
    p->tenth = tenth;
    fprintf(stderr, "%s %" PRId64 "/%" PRId64 " %s\n", p->what, p->done, p->total, now);
}

void cli_progress_end(cli_progress *p) {
    if (p->done && isatty(STDERR_FILENO)) fputc('\n', stderr);
}

/* ---- being stopped ---- */

static volatile sig_atomic_t stop_signal;

static void on_stop(int number) {
    stop_signal = number;
    signal(number, SIG_DFL);
}

/* A signal that the caller had ignored (a job in the background) stays ignored. */
const volatile sig_atomic_t *cli_stop(void) {
    static const int numbers[] = {SIGINT, SIGTERM};
    for (int i = 0; i < 2; i++)
        if (signal(numbers[i], on_stop) == SIG_IGN) signal(numbers[i], SIG_IGN);
    return &stop_signal;
}

/* ---- main ---- */

static int report(const cli_call *call, moec_status rc, const moec_error *err) {
    if (!rc) return 0;
    const char *text = *err->text ? err->text : moec_status_meaning(rc);
    fflush(stdout);
    fprintf(stderr, "moec %s: %s\n", call->verb->name, text);
    if (call->json) {
        json_t *object = json_object();
        json_object_set_new(object, "status", json_string(moec_status_name(rc)));
        json_object_set_new(object, "error", moec_json_text(text));
        cli_print_json(object);
    }
    return moec_exit_code(rc);
}

static int run_verb(const cli_verb *verb, int argc, char **argv) {
    static cli_call call;
    static moec_error err;
    call.verb = verb;
    take_options(&call);
    for (int i = 0; i < argc; i++) call.json |= !strcmp(argv[i], "--json"); /* also when what follows is wrong */
    moec_status rc = parse(&call, argc, argv, &err);
    if (cli_flag(&call, "help")) {
        print_verb_help(&call);
        return 0;
    }
    if (!rc) rc = verb->run(&call, &err);
    if (rc == MOEC_E_NOMEM && !strstr(err.text, "hint: "))
        moec_hint(&err, rc, "fewer tokens, a smaller model, or more memory");
    return report(&call, rc, &err);
}

static int run(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "--help";
    const cli_verb *verb = find_verb(name);
    if (verb) return run_verb(verb, argc - 2, argv + 2);
    if (!strcmp(name, "help") && argc > 2) {
        char help[] = "--help", *args[] = {help};
        name = argv[2];
        if ((verb = find_verb(name))) return run_verb(verb, 1, args);
    }
    if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
        printf("moec %s\n", moec_version());
        return 0;
    }
    bool asked = !strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help");
    if (!asked) fprintf(stderr, "moec: unknown verb \"%s\"\n\n", name);
    print_help(asked ? stdout : stderr);
    return asked ? 0 : 2;
}

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is then an error of write() */
    int code = run(argc, argv);
    if ((fflush(stdout) || ferror(stdout)) && !code) {
        fprintf(stderr, "moec: cannot write the output\n");
        code = 1;
    }
    if (stop_signal) raise(stop_signal);
    return code;
}
