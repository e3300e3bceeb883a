/* report: a run's log as one HTML page that opens without a network. */
#ifndef MOEC_TRAIN_REPORT_H
#define MOEC_TRAIN_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "../../gen/status.h"

/* One quantity over the steps of a run; growing arrays. */
typedef struct curve { double *x, *y; int count, room; } curve;

/* Shares of slots of every expert at one step: [layer][expert], 1 is the mean. */
typedef struct load_map { double step; int layers, experts; float *share; } load_map;

/* report_log.c: everything the page shows, read from RUN/log.jsonl. */
typedef struct run_log {
    curve loss, held_out, lr, norm, tokens_s, tflops, balance, dropped; /* losses in bits */
    load_map *maps;
    int map_count, map_room;
    double unigram_bits, parameters, active, seconds;
    double tokens;          /* trained on */
    char target[64], version[32];
    char *prompt, *sample;  /* NULL without */
    json_t *settings;
    int skipped;            /* lines that are not JSON (cut by a kill) */
    bool ended;
} run_log;

moec_status run_log_read(const char *run, run_log *log, moec_error *err);
void run_log_free(run_log *log);
/* Exponential mean with a bias-corrected start, over about `span` points. */
moec_status curve_smooth(const curve *source, int span, curve *out, moec_error *err);
moec_status curve_add(curve *c, double x, double y, moec_error *err);
void curve_free(curve *c);

/* report_svg.c: charts. Colours are classes of the page's style: s1 s2 s3 lines, h0..h10 cells. */
typedef struct series {
    const char *name, *unit, *css;
    const curve *data;
    bool dots;
} series;

typedef struct chart {
    const char *title, *unit, *note; /* note: one line under the title, or "" */
    bool log_y, from_zero;
    double rule;            /* a dashed horizontal line, NaN for none */
    const char *rule_name;
    const series *list;
    int count;
    bool wide;
} chart;

void chart_write(FILE *out, const chart *c);
/* Expert loads over the steps, one strip of cells for every layer. */
void heatmap_write(FILE *out, const run_log *log);
void html_text(FILE *out, const char *text); /* escaped */

/* report.c: writes `path`, as one step. */
moec_status report_write(const char *run, const char *path, moec_error *err);

extern const char report_css[], report_js[]; /* report_style.c */

#endif
