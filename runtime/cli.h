/* cli: the command line. One verb per file cli_VERB.c, one row per verb in cli.c.
 *
 * A verb says which options it takes and gets them parsed and checked. It prints results to stdout
 * (text, or one JSON value with --json), progress and warnings to stderr, and returns a status:
 * cli.c prints the error chain and turns the status into the exit code. Only cli*.c print. */
#ifndef MOEC_CLI_H
#define MOEC_CLI_H

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "device.h"

typedef enum { CLI_FLAG, CLI_TEXT, CLI_INT /* fits an int */, CLI_BIG /* up to 2^40 */, CLI_REAL } cli_kind;

typedef struct cli_option {
    const char *name;    /* --name; a row with NULL ends a list */
    char letter;         /* -x, or 0 */
    cli_kind kind;
    const char *value;   /* what help calls the value: "T" */
    const char *dflt;    /* text of the default; NULL: none */
    const char *doc;
} cli_option;

typedef struct cli_call cli_call;

typedef struct cli_verb {
    const char *name;
    const char *summary;          /* one line */
    const char *operands;         /* "SPEC", "CONFIG.lua [key=value ...]", "" */
    const char *common;           /* names of the common options it takes: "target tokens seed" */
    const cli_option *options;    /* its own; NULL: none */
    const char *examples[6];      /* NULL-ended */
    moec_status (*run)(cli_call *call, moec_error *err);
} cli_verb;

enum { CLI_MAX_OPERANDS = 256, CLI_MAX_OPTIONS = 48 };

struct cli_call {
    const cli_verb *verb;
    int operand_count;
    const char *operands[CLI_MAX_OPERANDS];
    bool json;                    /* --json: print one JSON value and nothing else on stdout */
    int option_count;             /* what the verb takes, and the values: use the functions below */
    const cli_option *options[CLI_MAX_OPTIONS];
    const char *values[CLI_MAX_OPTIONS];
    bool given[CLI_MAX_OPTIONS];
};

/* Values of options by name: as given, else the default. A wrong name aborts: a bug in the verb. */
const char *cli_text(const cli_call *call, const char *name); /* NULL without a default */
int64_t cli_int(const cli_call *call, const char *name);
double cli_real(const cli_call *call, const char *name);
bool cli_flag(const cli_call *call, const char *name);
bool cli_given(const cli_call *call, const char *name);

/* The spec in operands[from..], all joined by spaces ("-": read from stdin). */
moec_status cli_spec(const cli_call *call, int from, moec_spec *spec, moec_error *err);
/* Opens the device of --target and --threads and prints its note as a warning. */
moec_status cli_device(const cli_call *call, moec_device **device, moec_error *err);
/* Settings in effect: "# moec VERB name=value ..." in text mode, nothing with --json. `spec` and
 * `target` may be NULL: then they are left out. */
void cli_settings(const cli_call *call, const moec_spec *spec, const char *target);
/* The same as a JSON object (new reference). */
json_t *cli_settings_json(const cli_call *call, const moec_spec *spec, const char *target);
/* Prints and releases `value`. */
void cli_print_json(json_t *value);
/* A wrong use of the command line: E_SPEC with a hint to --help. */
moec_status cli_usage(const cli_call *call, moec_error *err, const char *format, ...)
    MOEC_PRINTF(3, 4);
/* An --op that is in no table: E_SPEC with a hint that lists those that are. */
moec_status cli_no_op(const char *name, moec_error *err);
void cli_warn(const char *format, ...) MOEC_PRINTF(1, 2);

/* From the first call on SIGINT and SIGTERM set what it points to, and the verb leaves nothing half done:
 * after it has returned, the program ends by that signal. A second one ends the program at once. */
const volatile sig_atomic_t *cli_stop(void);

/* Progress of long work on stderr: a bar on a terminal, a line every tenth otherwise. */
typedef struct cli_progress { const char *what; int64_t total, done; int tenth; } cli_progress;
void cli_progress_step(cli_progress *progress, const char *now);
void cli_progress_end(cli_progress *progress);

#endif
