/* Leaves out of an emitted kernel what the kernel does not use: helpers of the parts that it includes.
 *
 * A part is written once for many kernels; a reader of one of them should meet only what matters there. The
 * text is cut at its top level into items: functions marked DEVICE, macros, type names, structures and single
 * constants, which go when nothing that stays names them, and everything else, which stays. A comment goes with
 * what it stands on, a section's title when its section is empty. Nothing inside an
 * item is changed, so the machine code is the same. */
#include "prune.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef enum { CODE, DEFINITION, COMMENT, SECTION, BLANK } item_kind;

typedef struct item {
    item_kind kind;
    const char *text;        /* whole lines */
    size_t bytes;
    const char *name;        /* DEFINITION: what it defines */
    size_t name_bytes;
    int arity;               /* of a function; -1: not one */
    bool live;
} item;

typedef struct cut { item *item; int count, room; } cut;

static bool in_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

static bool begins(const char *text, const char *word) {
    size_t n = strlen(word);
    return !strncmp(text, word, n) && !in_word(text[n]);
}

/* ---- C as far as needed: comments and strings are skipped ---- */

/* The next character of code at or after `at`, `end` if there is none: past comments and string literals. */
static const char *code(const char *at, const char *end) {
    while (at < end) {
        if (at[0] == '/' && at + 1 < end && at[1] == '/') {
            while (at < end && *at != '\n') at++;
        } else if (at[0] == '/' && at + 1 < end && at[1] == '*') {
            for (at += 2; at < end && (at[-1] != '*' || at[0] != '/'); at++) {}
            at += at < end;
        } else if (*at == '"') {
            for (at++; at < end && *at != '"'; at++) at += *at == '\\';
            at += at < end;
        } else {
            return at;
        }
    }
    return end;
}

/* The next word of code in [at, end); false at the end. */
static bool next_word(const char **at, const char *end, const char **word, size_t *bytes) {
    const char *p = code(*at, end);
    while (p < end && !in_word(*p)) p = code(p + 1, end);
    *word = p;
    while (p < end && in_word(*p)) p++;
    *at = p;
    *bytes = (size_t)(p - *word);
    return *bytes > 0;
}

/* ---- items ---- */

static const char *line_end(const char *at) {
    at += strcspn(at, "\n");
    return at + (*at == '\n');
}

/* A macro: to the first line that does not end in a backslash. */
static const char *macro_end(const char *at) {
    const char *end = line_end(at);
    while (*end && end - at >= 2 && end[-2] == '\\') end = line_end(end);
    return end;
}

/* A statement or definition: to the end of the line where brackets are balanced and a ; or } is last. */
static const char *statement_end(const char *at) {
    int depth = 0;
    char last = 0;
    const char *all = at + strlen(at);
    for (const char *line = at; *line; line = line_end(line)) {
        const char *end = line_end(line);
        for (const char *p = code(line, end); p < end; p = code(p + 1, end)) {
            if (strchr("({[", *p)) depth++;
            if (strchr(")}]", *p)) depth--;
            if (!isspace((unsigned char)*p)) last = *p;
        }
        if (depth <= 0 && (last == ';' || last == '}')) return end;
    }
    return all;
}

static const char *past_template(const char *at, const char *end) {
    if (!begins(at, "template")) return at;
    while (at < end && *at != '>') at++;
    at += at < end;
    while (at < end && isspace((unsigned char)*at)) at++;
    return at;
}

/* The last word before the first `stop` in [at, end). */
static void name_before(item *it, const char *at, const char *end, char stop) {
    const char *limit = code(at, end), *word;
    size_t bytes;
    while (limit < end && *limit != stop) limit = code(limit + 1, end);
    while (next_word(&at, limit, &word, &bytes)) {
        it->name = word;
        it->name_bytes = bytes;
    }
}

static int count_of(const char *at, const char *end, char wanted) {
    int n = 0;
    for (const char *p = code(at, end); p < end; p = code(p + 1, end)) n += *p == wanted;
    return n;
}

/* Arguments or parameters in the brackets that begin at `at`; -1 when none begin there. */
static int arity_at(const char *at, const char *end) {
    int depth = 0, count = 0;
    at = code(at, end);
    if (at == end || *at != '(') return -1;
    for (; at < end; at = code(at + 1, end)) {
        if (strchr("({[", *at)) depth++;
        if (strchr(")}]", *at) && --depth == 0) return count;
        if (*at == ',' && depth == 1) count++;
        else if (!count && depth && *at != '(' && !isspace((unsigned char)*at)) count = 1;
    }
    return -1;
}

/* Tells definitions that may go, and what they are called. */
static void classify(item *it) {
    const char *end = it->text + it->bytes, *at = past_template(it->text, end);
    bool single = count_of(at, end, '=') == 1 && !count_of(at, end, ',');
    if (begins(at, "#define")) {
        at += strlen("#define");
        next_word(&at, end, &it->name, &it->name_bytes);
    } else if (begins(at, "DEVICE")) {
        name_before(it, at, end, '(');
        it->arity = arity_at(it->name + it->name_bytes, end);
    } else if (begins(at, "typedef") && !count_of(at, end, '(') && !count_of(at, end, '[')) {
        name_before(it, at, end, ';');
    } else if (single && (begins(at, "enum") || begins(at, "const"))) {
        name_before(it, at, end, '=');
    } else if (begins(at, "struct")) {
        name_before(it, at, end, '{');
    }
    if (it->name_bytes) it->kind = DEFINITION;
}

static item next_item(const char *at) {
    item it = {.kind = CODE, .text = at, .arity = -1};
    const char *end;
    if (*at == '\n') it.kind = BLANK, end = at + 1;
    else if (!strncmp(at, "// ----", 7)) it.kind = SECTION, end = line_end(at);
    else if (!strncmp(at, "//", 2)) it.kind = COMMENT, end = line_end(at);
    else end = *at == '#' ? macro_end(at) : statement_end(at);
    it.bytes = (size_t)(end - at);
    if (it.kind == CODE) classify(&it);
    return it;
}

static bool cut_up(cut *c, const char *text) {
    while (*text) {
        if (c->count == c->room) {
            c->room = c->room ? 2 * c->room : 256;
            item *grown = realloc(c->item, (size_t)c->room * sizeof *grown);
            if (!grown) return false;
            c->item = grown;
        }
        c->item[c->count] = next_item(text);
        text += c->item[c->count++].bytes;
    }
    return true;
}

/* ---- what stays ---- */

static void enliven(cut *c, item *it);

static bool is_called(const item *it, const char *word, size_t bytes) {
    return it->kind == DEFINITION && it->name_bytes == bytes && !memcmp(it->name, word, bytes);
}

/* A word that stays. Where functions share it, those with the arguments of this call (arity; -1: no call) if
 * there is one. */
static void name_used(cut *c, const char *word, size_t bytes, int arity) {
    bool exact = false;
    for (int i = 0; i < c->count && arity >= 0 && !exact; i++)
        exact = c->item[i].arity == arity && is_called(&c->item[i], word, bytes);
    for (int i = 0; i < c->count; i++) {
        item *it = &c->item[i];
        if (!it->live && is_called(it, word, bytes) && (!exact || it->arity == arity)) enliven(c, it);
    }
}

static void enliven(cut *c, item *it) {
    const char *at = it->text, *end = it->text + it->bytes, *word;
    size_t bytes;
    it->live = true;
    while (next_word(&at, end, &word, &bytes)) name_used(c, word, bytes, arity_at(at, end));
}

/* A comment belongs to what begins right below it. */
static bool needed_below(const cut *c, int i) {
    while (i < c->count && c->item[i].kind == COMMENT) i++;
    return i == c->count || c->item[i].kind == BLANK || c->item[i].kind == SECTION || c->item[i].live;
}

static bool section_has(const cut *c, int i) {
    for (i++; i < c->count && c->item[i].kind != SECTION; i++)
        if (c->item[i].live && c->item[i].kind != BLANK) return true;
    return false;
}

static void decide(cut *c) {
    for (int i = 0; i < c->count; i++)
        if (c->item[i].kind == CODE) enliven(c, &c->item[i]);
    for (int i = 0; i < c->count; i++)
        if (c->item[i].kind == COMMENT) c->item[i].live = needed_below(c, i);
    for (int i = 0; i < c->count; i++)
        if (c->item[i].kind == SECTION) c->item[i].live = section_has(c, i);
    bool blank = true; /* none at the start, never two */
    for (int i = 0; i < c->count; i++) {
        item *it = &c->item[i];
        if (it->kind == BLANK) it->live = !blank;
        if (it->live) blank = it->kind == BLANK;
    }
}

size_t moec_prune(char *text) {
    cut c = {0};
    char *out = text;
    if (!cut_up(&c, text)) {
        free(c.item);
        return strlen(text); /* a longer text, right all the same */
    }
    decide(&c);
    for (int i = 0; i < c.count; i++) {
        if (!c.item[i].live) continue;
        memmove(out, c.item[i].text, c.item[i].bytes);
        out += c.item[i].bytes;
    }
    *out = 0;
    free(c.item);
    return (size_t)(out - text);
}
