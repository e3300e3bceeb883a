/* report: the page. Figures first (did it learn, how fast), then curves, experts, sample, settings.
 * Everything is inline; the page asks for nothing. Written beside and renamed into place. */
#include "report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static double last(const curve *c) { return c->count ? c->y[c->count - 1] : (double)NAN; }

/* Median of the second half: what the run settled to, whatever the machine did at its start. */
static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double settled(const curve *c) {
    int n = c->count - c->count / 2;
    double *part = malloc((size_t)(n ? n : 1) * sizeof *part), middle = (double)NAN;
    if (part && n) {
        memcpy(part, c->y + c->count / 2, (size_t)n * sizeof *part);
        qsort(part, (size_t)n, sizeof *part, rising);
        middle = part[n / 2];
    }
    free(part);
    return middle;
}

static void human(double v, char *text, size_t bytes) {
    const char *unit = " kMGT";
    int i = 0;
    while (fabs(v) >= 1000 && unit[i + 1]) v /= 1000, i++;
    if (!isfinite(v)) snprintf(text, bytes, "-");
    else if (i) snprintf(text, bytes, "%.3g%c", v, unit[i]);
    else snprintf(text, bytes, "%.4g", v);
}

static void tile(FILE *out, const char *name, const char *value, const char *unit, const char *note) {
    fprintf(out, "<div class=\"tile\"><span>%s</span><b>%s<small>%s</small></b><em>%s</em></div>\n", name, value,
            unit, note);
}

/* Smoothed twins of the noisy curves. */
typedef struct smoothed { curve loss, tokens_s, tflops, norm, balance; } smoothed;

static moec_status smooth_all(const run_log *r, smoothed *s, moec_error *err) {
    int span = r->loss.count / 40 + 2;
    MOEC_TRY(curve_smooth(&r->loss, r->loss.count / 80 + 2, &s->loss, err));
    MOEC_TRY(curve_smooth(&r->tokens_s, span, &s->tokens_s, err));
    MOEC_TRY(curve_smooth(&r->tflops, span, &s->tflops, err));
    MOEC_TRY(curve_smooth(&r->norm, span, &s->norm, err));
    return curve_smooth(&r->balance, span, &s->balance, err);
}

static void smooth_free(smoothed *s) {
    curve_free(&s->loss);
    curve_free(&s->tokens_s);
    curve_free(&s->tflops);
    curve_free(&s->norm);
    curve_free(&s->balance);
}

static void tiles(FILE *out, const run_log *r, const smoothed *smooth) {
    char value[64], note[128], second[64];
    fprintf(out, "<section class=\"tiles\">\n");
    snprintf(value, sizeof value, "%.3f", last(&r->held_out));
    snprintf(note, sizeof note, "unigram entropy %.3f", r->unigram_bits);
    if (r->held_out.count) tile(out, "Held-out loss", value, " bits/token", note);
    snprintf(value, sizeof value, "%.3f", last(&smooth->loss));
    snprintf(note, sizeof note, "smoothed, from %.2f", r->loss.y[0]);
    tile(out, "Training loss", value, " bits/token", note);
    human(settled(&r->tokens_s), value, sizeof value);
    human(r->tokens, second, sizeof second);
    snprintf(note, sizeof note, "%s tokens in %.0f steps", second, r->loss.x[r->loss.count - 1]);
    tile(out, "Throughput", value, " tokens/s", note);
    human(settled(&r->tflops) * 1e12, value, sizeof value);
    tile(out, "Executed", value, " FLOP/s", r->target);
    human(r->parameters, value, sizeof value);
    human(r->active, second, sizeof second);
    snprintf(note, sizeof note, "%s active for a token", second);
    tile(out, "Parameters", value, "", note);
    snprintf(value, sizeof value, "%.2f", last(&smooth->balance));
    human(last(&r->dropped), second, sizeof second);
    snprintf(note, sizeof note, "busiest expert over the mean; %s slots dropped", second);
    tile(out, "Expert balance", value, "x", note);
    fprintf(out, "</section>\n");
}

static void charts(FILE *out, const run_log *r, const smoothed *smooth) {
    const series loss[] = {{"each step", "bits", "s0", &r->loss, false},
                           {"smoothed", "bits", "s1", &smooth->loss, false},
                           {"held out", "bits", "s2", &r->held_out, true}};
    const series speed[] = {{"each step", "tokens/s", "s0", &r->tokens_s, false},
                            {"smoothed", "tokens/s", "s1", &smooth->tokens_s, false}};
    const series flops[] = {{"each step", "TFLOP/s", "s0", &r->tflops, false},
                            {"smoothed", "TFLOP/s", "s1", &smooth->tflops, false}};
    const series norm[] = {{"each step", "", "s0", &r->norm, false},
                            {"smoothed", "", "s1", &smooth->norm, false}};
    const series rate[] = {{"learning rate", "", "s1", &r->lr, false}};
    const series balance[] = {{"each step", "x", "s0", &r->balance, false},
                            {"smoothed", "x", "s1", &smooth->balance, false}};
    const double none = (double)NAN;
    const chart all[] = {
        {"Loss", "bits per token", "", false, false, r->unigram_bits, "unigram entropy", loss, 3, true},
        {"Throughput", "tokens per second", "", false, true, none, "", speed, 2, false},
        {"Executed work", "TFLOP/s", "", false, true, none, "", flops, 2, false},
        {"Gradient norm", "before clipping", "", true, false, none, "", norm, 2, false},
        {"Learning rate", "", "", false, true, none, "", rate, 1, false},
        {"Expert balance", "busiest over mean load", "", false, false, 1, "perfect balance", balance, 2, true},
    };
    fprintf(out, "<section class=\"charts\">\n");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) chart_write(out, &all[i]);
    heatmap_write(out, r);
    fprintf(out, "</section>\n");
}

static void sample(FILE *out, const run_log *r) {
    if (!r->sample) return;
    fprintf(out, "<section class=\"card wide\"><h3>Sample <small>what the trained model writes</small></h3>"
                 "<blockquote><mark>");
    html_text(out, r->prompt);
    fprintf(out, "</mark>");
    html_text(out, r->sample);
    fprintf(out, "</blockquote></section>\n");
}

static void settings(FILE *out, const run_log *r) {
    const char *key;
    json_t *value;
    fprintf(out, "<details class=\"card wide\"><summary>Settings</summary><table>\n");
    json_object_foreach(r->settings, key, value) {
        fprintf(out, "<tr><th>");
        html_text(out, key);
        fprintf(out, "</th><td>");
        html_text(out, json_string_value(value) ? json_string_value(value) : "");
        fprintf(out, "</td></tr>\n");
    }
    fprintf(out, "</table></details>\n");
}

static void page(FILE *out, const char *run, const run_log *r, const smoothed *smooth) {
    fprintf(out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                 "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>");
    html_text(out, run);
    fprintf(out, "</title>\n<style>%s</style></head>\n<body><header><div><h1>", report_css);
    html_text(out, run);
    fprintf(out, "</h1><p>moec %s on %s%s</p></div><button id=\"theme\" aria-label=\"light or dark\">"
                 "light / dark</button></header>\n<main>\n",
            r->version, r->target, r->ended ? "" : " (not finished)");
    tiles(out, r, smooth);
    charts(out, r, smooth);
    sample(out, r);
    settings(out, r);
    fprintf(out, "</main>\n<div id=\"tip\" hidden></div>\n<script>%s</script></body></html>\n", report_js);
}

static moec_status cannot_write(const char *path, moec_error *err) {
    moec_fail(err, MOEC_E_IO, "report %s: %s", path, strerror(errno));
    return moec_hint(err, MOEC_E_IO, "-o names a file on a disk with room, in a folder that you may write");
}

moec_status report_write(const char *run, const char *path, moec_error *err) {
    run_log log;
    smoothed smooth = {0};
    struct stat st;
    char temporary[1200];
    if (!stat(path, &st) && !S_ISREG(st.st_mode)) { /* the rename would take a device away from everybody */
        moec_fail(err, MOEC_E_IO, "report %s: it is there and is no file", path);
        return moec_hint(err, MOEC_E_IO, "-o names a file");
    }
    MOEC_TRY(run_log_read(run, &log, err));
    moec_status rc = smooth_all(&log, &smooth, err);
    snprintf(temporary, sizeof temporary, "%.1100s.tmp-%ld", path, (long)getpid());
    FILE *out = rc ? NULL : fopen(temporary, "w");
    if (!rc && !out) rc = cannot_write(path, err);
    if (out) {
        page(out, run, &log, &smooth);
        bool bad = ferror(out) != 0;
        bad = fclose(out) || bad;
        if (bad || rename(temporary, path)) {
            rc = cannot_write(path, err);
            unlink(temporary);
        }
    }
    smooth_free(&smooth);
    run_log_free(&log);
    return rc;
}
