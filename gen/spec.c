/* The spec grammar: space-separated key=value, one table (spec.def) for parsing, printing, help.
 *
 * Invariants: parse(print(s)) == s; print gives keys in table order, so equal specs have equal
 * text; every error shows the text with a caret under the offending word. */
#include "gen.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { KIND_INT, KIND_REAL, KIND_ENUM, KIND_RATIO, KIND_EXTRA } key_kind;

typedef struct key {
    key_kind kind;
    const char *name;
    size_t offset, second;  /* of the field(s) in moec_spec */
    double dflt, min, max;
    const char *names;      /* ENUM: the words */
    const char *doc;
} key;

#define AT(field) offsetof(moec_spec, field)
static const key keys[] = {
#define INT(f, d, lo, hi, text)    {KIND_INT, #f, AT(f), 0, d, lo, hi, "", text},
#define REAL(f, d, lo, hi, text)   {KIND_REAL, #f, AT(f), 0, d, lo, hi, "", text},
#define ENUM(f, d, words, text)    {KIND_ENUM, #f, AT(f), 0, d, 0, 0, words, text},
#define RATIO(f, s, hi, text)      {KIND_RATIO, #f, AT(f), AT(s), 0, 0, hi, "", text},
#define EXTRA                      {KIND_EXTRA, "", 0, 0, 0, 0, 0, "", ""},
#include "spec.def"
#undef INT
#undef REAL
#undef ENUM
#undef RATIO
#undef EXTRA
};
enum { KEY_COUNT = sizeof keys / sizeof *keys };

static int64_t *int_at(moec_spec *s, size_t offset) { return (int64_t *)(void *)((char *)s + offset); }
static int64_t get_int(const moec_spec *s, size_t offset) {
    int64_t v;
    memcpy(&v, (const char *)s + offset, sizeof v);
    return v;
}
static double get_real(const moec_spec *s, size_t offset) {
    double v;
    memcpy(&v, (const char *)s + offset, sizeof v);
    return v;
}

void moec_spec_default(moec_spec *spec) {
    memset(spec, 0, sizeof *spec);
    for (int i = 0; i < KEY_COUNT; i++) {
        const key *k = &keys[i];
        if (k->kind == KIND_REAL) memcpy((char *)spec + k->offset, &k->dflt, sizeof k->dflt);
        else if (k->kind != KIND_EXTRA) *int_at(spec, k->offset) = (int64_t)k->dflt;
    }
}

/* The i-th word of a space-separated list into word[32]; false past the end. */
static bool nth_word(const char *list, int64_t index, char word[32]) {
    for (; *list; list += strspn(list, " ")) {
        size_t n = strcspn(list, " ");
        if (index-- == 0) {
            snprintf(word, 32, "%.*s", (int)n, list);
            return true;
        }
        list += n;
    }
    return false;
}

static const key *find_key(const char *name, size_t length) {
    for (int i = 0; i < KEY_COUNT; i++)
        if (keys[i].kind != KIND_EXTRA && strlen(keys[i].name) == length &&
            !memcmp(keys[i].name, name, length)) return &keys[i];
    return NULL;
}

const char *moec_spec_enum(const char *name, int64_t value) {
    static _Thread_local char word[4][32];
    static _Thread_local unsigned turn;
    const key *k = find_key(name, strlen(name));
    char *slot = word[turn++ % 4];
    return k && k->kind == KIND_ENUM && nth_word(k->names, value, slot) ? slot : NULL;
}

/* ---- parsing ---- */

/* The text and the word being read: what a caret error needs. */
typedef struct reader {
    const char *text, *at;
    size_t length;          /* of the word at `at` */
    moec_error *err;
} reader;

static moec_status caret(reader *r, const char *message) {
    int column = (int)(r->at - r->text);
    return moec_fail(r->err, MOEC_E_SPEC, "%s\n  %s\n  %*s^", message, r->text, column, "");
}

static moec_status bad_value(reader *r, const key *k) {
    char message[512];
    if (k->kind == KIND_ENUM)
        snprintf(message, sizeof message, "%s is one of: %s (%s)", k->name, k->names, k->doc);
    else if (k->kind == KIND_RATIO)
        snprintf(message, sizeof message, "%s is written G/g, 1 <= g <= G <= %.0f (%s)", k->name,
                 k->max, k->doc);
    else
        snprintf(message, sizeof message, "%s is a %s from %.15g to %.15g (%s)", k->name,
                 k->kind == KIND_INT ? "whole number" : "number", k->min, k->max, k->doc);
    return caret(r, message);
}

static bool read_int(const char **at, const char *end, int64_t *value) {
    if (*at == end || !isdigit((unsigned char)**at)) return false;
    char *stop;
    errno = 0;
    *value = strtoll(*at, &stop, 10);
    *at = stop;
    return errno == 0 && stop <= end;
}

static bool read_ratio(const char *value, const char *end, moec_spec *spec, const key *k) {
    int64_t G, g;
    if (!read_int(&value, end, &G) || value == end || *value++ != '/') return false;
    if (!read_int(&value, end, &g) || value != end) return false;
    if (g > G || (double)G > k->max || (g < 1 && G != 0)) return false;
    *int_at(spec, k->offset) = G;
    *int_at(spec, k->second) = g;
    return true;
}

static bool read_enum(const char *value, const char *end, moec_spec *spec, const key *k) {
    char word[32];
    for (int64_t i = 0; nth_word(k->names, i, word); i++) {
        if (strlen(word) != (size_t)(end - value) || memcmp(word, value, strlen(word))) continue;
        *int_at(spec, k->offset) = i;
        return true;
    }
    return false;
}

static bool read_real(const char *value, const char *end, moec_spec *spec, const key *k) {
    char *stop;
    double v = strtod(value, &stop);
    if (value == end || stop != end || !(v >= k->min && v <= k->max)) return false;
    memcpy((char *)spec + k->offset, &v, sizeof v);
    return true;
}

static bool read_whole(const char *value, const char *end, moec_spec *spec, const key *k) {
    int64_t v;
    if (!read_int(&value, end, &v) || value != end) return false;
    if ((double)v < k->min || (double)v > k->max) return false;
    *int_at(spec, k->offset) = v;
    return true;
}

static bool read_value(const char *value, const char *end, moec_spec *spec, const key *k) {
    switch (k->kind) {
    case KIND_INT:   return read_whole(value, end, spec, k);
    case KIND_REAL:  return read_real(value, end, spec, k);
    case KIND_ENUM:  return read_enum(value, end, spec, k);
    case KIND_RATIO: return read_ratio(value, end, spec, k);
    case KIND_EXTRA: break;
    }
    return false;
}

static moec_status read_word(reader *r, moec_spec *spec, uint64_t *seen) {
    const char *end = r->at + r->length;
    const char *equals = memchr(r->at, '=', r->length);
    if (!equals)
        return moec_hint(r->err, caret(r, "expected key=value"), "a spec is words such as E=64 K=6 H=2048 F=1408; "
                         "moec spec --help lists the keys");
    const key *k = find_key(r->at, (size_t)(equals - r->at));
    if (!k) {
        moec_status rc = caret(r, "unknown key");
        char list[512] = "";
        for (int i = 0; i < KEY_COUNT; i++) {
            strcat(list, keys[i].name);
            if (keys[i].kind != KIND_EXTRA) strcat(list, " ");
        }
        return moec_hint(r->err, rc, "keys are: %s", list);
    }
    uint64_t bit = UINT64_C(1) << (k - keys);
    if (*seen & bit) return caret(r, "this key was given before");
    *seen |= bit;
    if (read_value(equals + 1, end, spec, k)) return MOEC_OK;
    r->at = equals + 1;
    return bad_value(r, k);
}

moec_status moec_spec_parse(const char *text, moec_spec *spec, moec_error *err) {
    reader r = {.text = text, .at = text, .err = err};
    uint64_t seen = 0;
    moec_spec_default(spec);
    for (const char *c = text; *c; c++)
        if (!isprint((unsigned char)*c) || strlen(text) > 800) {
            return moec_fail(err, MOEC_E_SPEC, "a spec is one line of at most 800 printable characters");
        }
    for (;;) {
        r.at += strspn(r.at, " ");
        if (!*r.at) break;
        r.length = strcspn(r.at, " ");
        const char *next = r.at + r.length;
        MOEC_TRY(read_word(&r, spec, &seen));
        r.at = next;
    }
    moec_status rc = moec_spec_check(spec, err);
    return rc ? moec_context(err, rc, "spec \"%s\"", text) : MOEC_OK;
}

/* ---- relations between keys ---- */

#define REQUIRE(condition, ...) \
    do { if (!(condition)) return moec_fail(err, MOEC_E_SPEC, __VA_ARGS__); } while (0)

static moec_status check_groups(const moec_spec *s, moec_error *err) {
    if (!s->groups) return MOEC_OK;
    REQUIRE(s->router == MOEC_SIGMOID_BIAS, "groups=G/g goes with router=sigmoid_bias only");
    REQUIRE(s->E % s->groups == 0, "groups=%" PRId64 " does not divide E=%" PRId64, s->groups, s->E);
    REQUIRE(s->K <= s->E / s->groups * s->top_groups,
            "K=%" PRId64 " experts do not fit in %" PRId64 " groups of %" PRId64, s->K,
            s->top_groups, s->E / s->groups);
    return MOEC_OK;
}

moec_status moec_spec_check(const moec_spec *s, moec_error *err) {
    REQUIRE(s->K <= s->E, "K=%" PRId64 " is larger than E=%" PRId64 ": a token cannot choose more "
            "experts than there are", s->K, s->E);
    REQUIRE(s->H % 8 == 0, "H=%" PRId64 " is not a multiple of 8", s->H);
    REQUIRE(s->F % 8 == 0, "F=%" PRId64 " is not a multiple of 8", s->F);
    REQUIRE(s->columns % 8 == 0 && s->columns <= s->H,
            "columns=%" PRId64 " is not a multiple of 8 up to H=%" PRId64, s->columns, s->H);
    REQUIRE(s->shared % 8 == 0, "shared=%" PRId64 " is not a multiple of 8", s->shared);
    REQUIRE(s->layout == MOEC_CONCAT || moec_spec_gated(s),
            "layout=interleaved needs a gated activation (swiglu geglu reglu)");
    REQUIRE(!s->heads || (s->kv && s->heads % s->kv == 0),
            "kv=%" PRId64 " does not divide heads=%" PRId64, s->kv, s->heads);
    REQUIRE(!s->heads || (s->dim && s->dim % 2 == 0), "dim=%" PRId64 " is not an even head size",
            s->dim);
    return check_groups(s, err);
}

bool moec_spec_gated(const moec_spec *s) { return s->act <= MOEC_ACT_REGLU; }
int64_t moec_spec_U(const moec_spec *s) { return moec_spec_gated(s) ? 2 * s->F : s->F; }

/* ---- printing ---- */

static bool listed(const char *list, const char *name) {
    char word[32];
    for (int64_t i = 0; nth_word(list, i, word); i++)
        if (!strcmp(word, name)) return true;
    return false;
}

static bool is_default(const moec_spec *s, const key *k) {
    return k->kind == KIND_REAL ? get_real(s, k->offset) == k->dflt
                                : get_int(s, k->offset) == (int64_t)k->dflt;
}

static int print_key(const moec_spec *s, const key *k, char *out, size_t room) {
    char word[32];
    switch (k->kind) {
    case KIND_INT:   return snprintf(out, room, "%s=%" PRId64, k->name, get_int(s, k->offset));
    case KIND_REAL:  return snprintf(out, room, "%s=%.9g", k->name, get_real(s, k->offset));
    case KIND_ENUM:
        return snprintf(out, room, "%s=%s", k->name,
                        nth_word(k->names, get_int(s, k->offset), word) ? word : "?");
    case KIND_RATIO:
        return snprintf(out, room, "%s=%" PRId64 "/%" PRId64, k->name, get_int(s, k->offset),
                        get_int(s, k->second));
    case KIND_EXTRA: break;
    }
    return 0;
}

void moec_spec_print(const moec_spec *spec, const char *list, char *buf, size_t bytes) {
    bool extra = false;
    size_t used = 0;
    if (bytes) buf[0] = 0;
    for (int i = 0; i < KEY_COUNT && used < bytes; i++) {
        const key *k = &keys[i];
        if (k->kind == KIND_EXTRA) { extra = true; continue; }
        if (list ? !listed(list, k->name) : extra && is_default(spec, k)) continue;
        if (list && extra && is_default(spec, k)) continue;
        if (used) used += (size_t)snprintf(buf + used, bytes - used, " ");
        if (used < bytes) used += (size_t)print_key(spec, k, buf + used, bytes - used);
    }
}

void moec_spec_keys(void (*visit)(void *, const char *, const char *, const char *), void *user) {
    moec_spec spec;
    moec_spec_default(&spec);
    for (int i = 0; i < KEY_COUNT; i++) {
        char text[64], doc[256];
        if (keys[i].kind == KIND_EXTRA) continue;
        print_key(&spec, &keys[i], text, sizeof text);
        snprintf(doc, sizeof doc, "%s%s%s", keys[i].doc, *keys[i].names ? ": " : "", keys[i].names);
        visit(user, keys[i].name, doc, strchr(text, '=') + 1);
    }
}
