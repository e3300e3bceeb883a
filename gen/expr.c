/* Integer expressions over the sizes of a spec and a call: "E*U*H", "(R+127)/128", "min(sms,T)".
 *
 * Grammar: sum = term {(+|-) term}; term = factor {(*|/|%) factor}; factor = number | name |
 * (sum) | min(sum,sum) | max(sum,sum). Division floors (all values are non-negative). A recursive
 * descent of one page keeps shapes, grids and scratch sizes readable text in tables. */
#include "gen.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct parser {
    const char *text, *at;
    const moec_sizes *sizes;
    moec_error *err;
    moec_status rc;
    int depth;
} parser;

static int64_t sum(parser *p);

static int64_t fail(parser *p, const char *why) {
    if (!p->rc)
        p->rc = moec_fail(p->err, MOEC_E_TEMPLATE, "expression: %s\n  %s\n  %*s^", why, p->text,
                          (int)(p->at - p->text), "");
    return 0;
}

static char peek(parser *p) {
    while (*p->at == ' ') p->at++;
    return *p->at;
}

static bool take(parser *p, char c) {
    if (peek(p) != c) return false;
    p->at++;
    return true;
}

static bool lookup(const moec_sizes *z, const char *name, size_t n, int64_t *value) {
    const moec_spec *s = z->spec;
    const struct { const char *name; int64_t value; } table[] = {
#define INT(f, ...)  {#f, s->f},
#define ENUM(f, ...) {#f, s->f},
#define REAL(f, ...)
#define RATIO(f, g, ...) {#f, s->f}, {#g, s->g},
#define EXTRA
#include "spec.def"
#undef INT
#undef ENUM
#undef REAL
#undef RATIO
#undef EXTRA
        {"U", moec_spec_U(s)}, {"T", z->T},   {"R", z->R},
        {"N", z->N},           {"threads", z->threads}, {"sms", z->sms},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strlen(table[i].name) == n && !memcmp(table[i].name, name, n)) {
            *value = table[i].value;
            return true;
        }
    return false;
}

static int64_t pair(parser *p, bool smaller) {
    int64_t a = 0, b = 0;
    if (!take(p, '(')) return fail(p, "expected '('");
    a = sum(p);
    if (!take(p, ',')) return fail(p, "expected ','");
    b = sum(p);
    if (!take(p, ')')) return fail(p, "expected ')'");
    return smaller == (a < b) ? a : b;
}

static int64_t factor(parser *p) {
    char c = peek(p);
    if (isdigit((unsigned char)c)) {
        char *end;
        errno = 0;
        int64_t v = strtoll(p->at, &end, 10);
        if (errno) return fail(p, "the number is too large");
        p->at = end;
        return v;
    }
    if (take(p, '(')) {
        int64_t v = sum(p);
        return take(p, ')') ? v : fail(p, "expected ')'");
    }
    size_t n = 0;
    while (isalnum((unsigned char)p->at[n]) || p->at[n] == '_') n++;
    if (!n) return fail(p, "expected a number or a name");
    const char *name = p->at;
    int64_t v = 0;
    if (n == 3 && (!memcmp(name, "min", 3) || !memcmp(name, "max", 3))) {
        p->at += n;
        return pair(p, name[1] == 'i');
    }
    if (!lookup(p->sizes, name, n, &v)) return fail(p, "unknown size");
    p->at += n;
    return v;
}

static int64_t term(parser *p) {
    int64_t v = factor(p);
    for (;;) {
        char c = peek(p);
        if (p->rc || (c != '*' && c != '/' && c != '%')) return v;
        p->at++;
        int64_t w = factor(p);
        if (c == '*') {
            if (__builtin_mul_overflow(v, w, &v)) return fail(p, "overflow");
        } else if (!w) {
            return fail(p, "division by zero");
        } else {
            v = c == '/' ? v / w : v % w;
        }
    }
}

static int64_t sum(parser *p) {
    if (++p->depth > 64) return fail(p, "too deep");
    int64_t v = term(p);
    while (!p->rc) {
        bool over = false;
        if (take(p, '+')) over = __builtin_add_overflow(v, term(p), &v);
        else if (take(p, '-')) over = __builtin_sub_overflow(v, term(p), &v);
        else break;
        if (over) return fail(p, "overflow");
    }
    p->depth--;
    return v;
}

moec_status moec_expr(const char *text, const moec_sizes *sizes, int64_t *value, moec_error *err) {
    parser p = {.text = text, .at = text, .sizes = sizes, .err = err};
    int64_t v = sum(&p);
    if (!p.rc && peek(&p)) fail(&p, "unexpected character");
    if (!p.rc) *value = v;
    return p.rc;
}

moec_status moec_launch_grid(const moec_launch *launch, int phase, const moec_sizes *sizes,
                             int64_t *blocks, moec_error *err) {
    char text[MOEC_EXPR_BYTES];
    const char *at = launch->grid;
    for (const char *next; phase-- > 0 && (next = strchr(at, ';')); at = next + 1) {}
    size_t n = strcspn(at, ";");
    memcpy(text, at, n);
    text[n] = 0;
    return moec_expr(text, sizes, blocks, err);
}
