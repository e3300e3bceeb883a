/* moec report: draws a run's log into one HTML file. */
#include "cli.h"

#include <stdio.h>

#include "json_text.h"
#include "train/report.h"

static moec_status run(cli_call *call, moec_error *err) {
    char path[1200];
    if (call->operand_count != 1) return cli_usage(call, err, "one run's folder is needed");
    const char *out = cli_text(call, "output");
    snprintf(path, sizeof path, "%s", out ? out : "");
    if (!out) snprintf(path, sizeof path, "%.1150s/report.html", call->operands[0]);
    MOEC_TRY(report_write(call->operands[0], path, err));
    if (call->json) cli_print_json(json_pack("{s:o, s:o}", "run", moec_json_text(call->operands[0]), "report",
                                             moec_json_text(path)));
    else printf("report: %s\n", path);
    return MOEC_OK;
}

static const cli_option options[] = {
    {"output", 'o', CLI_TEXT, "FILE", NULL, "where to write it (default: RUN/report.html)"},
    {0},
};

const cli_verb cli_report_verb = {
    .name = "report",
    .summary = "draw a training run as one HTML file",
    .operands = "RUN",
    .common = "",
    .options = options,
    .examples = {"moec report runs/demo", "moec report runs/demo -o demo.html", NULL},
    .run = run,
};
