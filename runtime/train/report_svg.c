/* report_svg: charts as SVG text. Each chart is complete without a script; its data also stand in a
 * JSON block beside it, which the page's script uses for the crosshair. Long curves are averaged
 * down to the pixels they are drawn on. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

enum { LEFT = 58, RIGHT = 14, TOP = 12, BOTTOM = 30, HEIGHT = 260, NARROW = 560, WIDE = 1140, MOST = 600 };

typedef struct frame { double x0, x1, y0, y1; bool log_y; int width; } frame;

void html_text(FILE *out, const char *text) {
    for (; *text; text++) {
        switch (*text) {
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '&': fputs("&amp;", out); break;
        case '"': fputs("&quot;", out); break;
        default: fputc(*text, out);
        }
    }
}

/* ---- scales ---- */

static double px(const frame *f, double x) {
    double span = f->x1 > f->x0 ? f->x1 - f->x0 : 1;
    return LEFT + (x - f->x0) / span * (f->width - LEFT - RIGHT);
}

static double py(const frame *f, double y) {
    double a = f->y0, b = f->y1;
    if (f->log_y) a = log10(a), b = log10(b), y = log10(y > 1e-30 ? y : 1e-30);
    return HEIGHT - BOTTOM - (y - a) / (b > a ? b - a : 1) * (HEIGHT - TOP - BOTTOM);
}

/* 1, 2 or 5 times a power of ten, so that about `wanted` steps cover the span. */
static double nice_step(double span, int wanted) {
    double raw = span / wanted, power = pow(10, floor(log10(raw))), part = raw / power;
    return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

static void widen(frame *f, const curve *c) {
    for (int i = 0; i < c->count; i++) {
        if (f->log_y && c->y[i] <= 0) continue;
        if (c->x[i] < f->x0) f->x0 = c->x[i];
        if (c->x[i] > f->x1) f->x1 = c->x[i];
        if (c->y[i] < f->y0) f->y0 = c->y[i];
        if (c->y[i] > f->y1) f->y1 = c->y[i];
    }
}

static frame frame_of(const chart *c) {
    frame f = {1e300, -1e300, 1e300, -1e300, c->log_y, c->wide ? WIDE : NARROW};
    for (int i = 0; i < c->count; i++) widen(&f, c->list[i].data);
    if (f.x0 > f.x1) f.x0 = 0, f.x1 = 1, f.y0 = c->log_y ? 1 : 0, f.y1 = 10;
    if (isfinite(c->rule) && c->rule > f.y1) f.y1 = c->rule;
    if (isfinite(c->rule) && c->rule < f.y0) f.y0 = c->rule;
    if (c->from_zero && f.y0 > 0) f.y0 = 0;
    if (c->log_y) {
        f.y0 = pow(10, floor(log10(f.y0) * 2) / 2);
        f.y1 = pow(10, ceil(log10(f.y1) * 2 + 1e-9) / 2);
        return f;
    }
    double step = nice_step(f.y1 > f.y0 ? f.y1 - f.y0 : fabs(f.y1) + 1e-9, 5);
    f.y0 = floor(f.y0 / step) * step;
    if (isfinite(c->rule) && c->rule < f.y0 + step / 2) f.y0 -= step; /* room for the rule's name */
    f.y1 = ceil(f.y1 / step + 1e-9) * step;
    return f;
}

/* 1200 -> 1.2k; few digits, no trailing zeros. */
static void label(char *text, size_t bytes, double v) {
    double a = fabs(v);
    if (a >= 1e9) snprintf(text, bytes, "%.4gG", v / 1e9);
    else if (a >= 1e6) snprintf(text, bytes, "%.4gM", v / 1e6);
    else if (a >= 1e4) snprintf(text, bytes, "%.4gk", v / 1e3);
    else snprintf(text, bytes, "%.4g", a < 1e-12 ? 0 : v);
}

/* ---- axes ---- */

static void y_tick(FILE *out, const frame *f, double v) {
    char text[32];
    double y = py(f, v);
    if (y < TOP - 1 || y > HEIGHT - BOTTOM + 1) return;
    label(text, sizeof text, v);
    fprintf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                 "<text class=\"tick\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
            LEFT, f->width - RIGHT, y, y, LEFT - 8, y + 4, text);
}

static void axes(FILE *out, const frame *f) {
    char text[32];
    if (f->log_y) {
        for (double p = pow(10, floor(log10(f->y0))); p <= f->y1 * 1.001; p *= 10)
            for (int k = 0; k < 3; k++) y_tick(out, f, p * (k == 0 ? 1 : k == 1 ? 2 : 5));
    } else {
        double step = nice_step(f->y1 - f->y0, 5);
        for (int i = 0; i < 12 && f->y0 + i * step <= f->y1 + step * 1e-6; i++) y_tick(out, f, f->y0 + i * step);
    }
    double step = nice_step(f->x1 > f->x0 ? f->x1 - f->x0 : 1, f->width > NARROW ? 10 : 6);
    for (double x = ceil(f->x0 / step) * step; x <= f->x1 + step * 1e-6; x += step) {
        label(text, sizeof text, x);
        fprintf(out, "<text class=\"tick\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", px(f, x),
                HEIGHT - BOTTOM + 19, text);
    }
    fprintf(out, "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>\n", LEFT, f->width - RIGHT,
            HEIGHT - BOTTOM, HEIGHT - BOTTOM);
}

/* ---- curves ---- */

/* Point k of at most MOST: the mean of its share of the curve. */
static int points(const curve *c) { return c->count < MOST ? c->count : MOST; }

static void point(const curve *c, int k, double *x, double *y) {
    int n = points(c), from = (int)((int64_t)k * c->count / n), to = (int)((int64_t)(k + 1) * c->count / n);
    *x = c->x[to - 1];
    *y = 0;
    for (int i = from; i < to; i++) *y += c->y[i] / (to - from);
}

static void draw(FILE *out, const frame *f, const series *s) {
    double x, y;
    if (!s->data->count) return;
    fprintf(out, "<path class=\"line %s\" d=\"", s->css);
    for (int k = 0; k < points(s->data); k++) {
        point(s->data, k, &x, &y);
        fprintf(out, "%c%.1f %.1f", k ? 'L' : 'M', px(f, x), py(f, y));
    }
    fprintf(out, "\"/>\n");
    for (int k = 0; s->dots && k < points(s->data); k++) {
        point(s->data, k, &x, &y);
        fprintf(out, "<circle class=\"dot %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"/>\n", s->css, px(f, x), py(f, y));
    }
}

static void rule(FILE *out, const frame *f, const chart *c) {
    if (!isfinite(c->rule)) return;
    double y = py(f, c->rule), text = y > (TOP + HEIGHT - BOTTOM) / 2.0 ? y + 15 : y - 6;
    fprintf(out, "<line class=\"rule\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                 "<text class=\"rulename\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
            LEFT, f->width - RIGHT, y, y, f->width - RIGHT - 4, text, c->rule_name);
}

static void legend(FILE *out, const chart *c) {
    if (c->count < 2) return;
    fprintf(out, "<div class=\"legend\">");
    for (int i = 0; i < c->count; i++) {
        if (!c->list[i].data->count) continue;
        fprintf(out, "<span><i class=\"key %s\"></i>%s</span>", c->list[i].css, c->list[i].name);
    }
    fprintf(out, "</div>");
}

/* The data again, for the crosshair: plot frame in SVG units and each drawn point. */
static void data_block(FILE *out, const frame *f, const chart *c) {
    double x, y;
    fprintf(out, "<script type=\"application/json\">{\"x\":[%.9g,%.9g],\"y\":[%.9g,%.9g],\"log\":%s,"
                 "\"box\":[%d,%d,%d,%d],\"w\":%d,\"series\":[",
            f->x0, f->x1, f->y0, f->y1, f->log_y ? "true" : "false", LEFT, TOP, f->width - RIGHT,
            HEIGHT - BOTTOM, f->width);
    for (int i = 0; i < c->count; i++) {
        const series *s = &c->list[i];
        fprintf(out, "%s{\"n\":\"%s\",\"u\":\"%s\",\"c\":\"%s\",\"p\":[", i ? "," : "", s->name, s->unit, s->css);
        for (int k = 0; k < points(s->data); k++) {
            point(s->data, k, &x, &y);
            fprintf(out, "%s[%.9g,%.5g]", k ? "," : "", x, y);
        }
        fprintf(out, "]}");
    }
    fprintf(out, "]}</script>\n");
}

void chart_write(FILE *out, const chart *c) {
    frame f = frame_of(c);
    fprintf(out, "<figure class=\"card%s\"><figcaption><h3>%s <small>%s</small></h3>", c->wide ? " wide" : "",
            c->title, c->unit);
    legend(out, c);
    fprintf(out, "</figcaption>");
    if (*c->note) fprintf(out, "<p class=\"note\">%s</p>", c->note);
    fprintf(out, "<div class=\"plot\"><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n", f.width,
            HEIGHT, c->title);
    axes(out, &f);
    rule(out, &f, c);
    for (int i = 0; i < c->count; i++) draw(out, &f, &c->list[i]);
    fprintf(out, "<line class=\"cross\" visibility=\"hidden\" y1=\"%d\" y2=\"%d\"/></svg>\n", TOP, HEIGHT - BOTTOM);
    data_block(out, &f, c);
    fprintf(out, "</div></figure>\n");
}

/* ---- expert loads ---- */

enum { COLUMNS = 120, CELLS = 40000, MAP_WIDTH = 560, MAP_LEFT = 34 };

/* 11 classes around the mean: half the share or twice the share are four classes away. */
static int heat(float share) {
    double level = share > 0.001f ? log2((double)share) * 4 : -5;
    int bin = (int)lround(level);
    return 5 + (bin < -5 ? -5 : bin > 5 ? 5 : bin);
}

/* Cells of one expert along the steps; neighbours of one class are one rectangle. */
static void strip(FILE *out, const run_log *log, int columns, int layer, int expert, double y, double height) {
    double cell = (double)(MAP_WIDTH - MAP_LEFT) / columns;
    int from = 0, now = -1;
    for (int c = 0; c <= columns; c++) {
        int bin = -2;
        if (c < columns) {
            const load_map *m = &log->maps[(int64_t)c * log->map_count / columns];
            bin = heat(m->share[layer * m->experts + expert]);
        }
        if (bin == now) continue;
        if (now >= 0)
            fprintf(out, "<rect class=\"h%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>", now,
                    MAP_LEFT + from * cell, y, (c - from) * cell + 0.3, height);
        from = c;
        now = bin;
    }
}

static void layer_map(FILE *out, const run_log *log, int columns, int layer) {
    const load_map *last = &log->maps[log->map_count - 1];
    double row = last->experts > 48 ? 3 : last->experts > 16 ? 6 : 12, gap = row > 6 ? 1.5 : 0;
    double height = last->experts * row;
    fprintf(out, "<figure class=\"map\"><figcaption>layer %d</figcaption><svg viewBox=\"0 0 %d %.0f\" "
                 "role=\"img\" aria-label=\"load of the experts of layer %d\">\n", layer, MAP_WIDTH, height, layer);
    for (int e = 0; e < last->experts; e++) {
        if (row > 6)
            fprintf(out, "<text class=\"tick\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%d</text>", MAP_LEFT - 6,
                    e * row + row - 2.5, e);
        strip(out, log, columns, layer, e, e * row, row - gap);
        fputc('\n', out);
    }
    fprintf(out, "</svg></figure>\n");
}

/* Too many experts for strips: one cell for each expert of each layer, at the last step. */
static void last_map(FILE *out, const run_log *log) {
    const load_map *m = &log->maps[log->map_count - 1];
    double cell = (double)(WIDE - MAP_LEFT) / m->experts;
    fprintf(out, "<figure class=\"map wide\"><figcaption>all layers (rows) and experts (columns) at step %.0f"
                 "</figcaption><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"expert loads\">\n",
            m->step, WIDE, m->layers * 8);
    for (int l = 0; l < m->layers; l++)
        for (int e = 0; e < m->experts; e++)
            fprintf(out, "<rect class=\"h%d\" x=\"%.1f\" y=\"%d\" width=\"%.2f\" height=\"7\"/>",
                    heat(m->share[l * m->experts + e]), MAP_LEFT + e * cell, l * 8, cell);
    fprintf(out, "</svg></figure>\n");
}

static void scale(FILE *out) {
    fprintf(out, "<div class=\"scale\"><span>idle</span>");
    for (int i = 0; i <= 10; i++) fprintf(out, "<i class=\"b%d\"></i>", i);
    fprintf(out, "<span>over 2x the mean</span></div>\n");
}

void heatmap_write(FILE *out, const run_log *log) {
    if (!log->map_count) return;
    const load_map *last = &log->maps[log->map_count - 1];
    int columns = log->map_count < COLUMNS ? log->map_count : COLUMNS;
    fprintf(out, "<section class=\"card wide\"><figcaption><h3>Expert load <small>share of the layer's slots, "
                 "relative to the mean</small></h3>");
    scale(out);
    fprintf(out, "</figcaption><p class=\"note\">Each row is an expert, steps run from left to right. Grey is "
                 "its fair share.</p><div class=\"maps\">\n");
    bool strips = (int64_t)last->layers * last->experts * columns <= CELLS;
    for (int l = 0; strips && l < last->layers; l++) layer_map(out, log, columns, l);
    if (!strips) last_map(out, log);
    fprintf(out, "</div></section>\n");
}
