/* Golden texts: tests/golden/list names requests, tests/golden/NAME holds what they must emit.
 *
 * A template change shows as a diff to review. `ninja golden-accept` rewrites the files. Each
 * request is emitted twice, by two generators: equal bytes, or the text depends on something else. */
#include <stdlib.h>

#include "gen.h"
#include "t.h"

typedef struct golden { char name[96], target[32], op[32], spec[512], config[256]; } golden;

/* A line "NAME | target | op | spec | config"; false at a comment or blank line. */
static bool parse(char *line, golden *g) {
    char *column[5] = {g->name, g->target, g->op, g->spec, g->config};
    size_t room[5] = {sizeof g->name, sizeof g->target, sizeof g->op, sizeof g->spec, sizeof g->config};
    if (*line == '#' || *line == '\n') return false;
    char *at = line;
    for (int i = 0; i < 5; i++) {
        while (*at == ' ') at++;
        size_t n = strcspn(at, "|\n");
        char *next = at + n + (at[n] == '|');
        while (n && at[n - 1] == ' ') n--;
        snprintf(column[i], room[i], "%.*s", (int)n, at);
        at = next;
    }
    return true;
}

static char *emit(const golden *g, moec_error *err) {
    moec_gen *gen;
    moec_spec spec;
    moec_kernel kernel;
    moec_config config;
    char *text = NULL;
    if (moec_gen_new(&gen, err)) return NULL;
    moec_request q = {.op = moec_op_find(g->op), .target = moec_target_find(g->target), .spec = &spec};
    if (!q.op || !q.target) moec_fail(err, MOEC_E_SPEC, "unknown op or target");
    else if (!moec_spec_parse(g->spec, &spec, err) &&
             !moec_config_parse(gen, &q, g->config, &config, err)) {
        q.config = &config;
        if (!moec_emit(gen, &q, &kernel, err)) {
            text = strdup(kernel.source);
            moec_kernel_free(&kernel);
        }
    }
    moec_gen_free(gen);
    return text;
}

static char *read_file(const char *path) {
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);
    if (f && text && fread(text, 1, (1 << 20) - 1, f) == 0) text[0] = 0;
    if (f) fclose(f);
    return text;
}

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    T_NEED(f);
    fputs(text, f);
    T_OK(fclose(f) == 0);
}

static int first_difference(const char *a, const char *b) {
    int line = 1;
    for (; *a && *a == *b; a++, b++) line += *a == '\n';
    return line;
}

static void check(const golden *g) {
    moec_error err = {0};
    char path[256];
    char *first = emit(g, &err), *second = emit(g, &err);
    snprintf(path, sizeof path, "tests/golden/%s", g->name);
    if (!first || !second) {
        T_FAIL("%s: %s", g->name, err.text);
    } else {
        T_STR(second, first);
        if (getenv("MOEC_GOLDEN_ACCEPT")) write_file(path, first);
        char *want = read_file(path);
        if (strcmp(first, want))
            T_FAIL("%s differs at line %d; if that is meant: ninja golden-accept, and review the diff",
                   path, first_difference(first, want));
        free(want);
    }
    free(first);
    free(second);
}

T_CASE(emitted_text_is_as_reviewed) {
    FILE *list = fopen("tests/golden/list", "r");
    char line[1024];
    golden g;
    T_NEED(list);
    while (fgets(line, sizeof line, list))
        if (parse(line, &g)) check(&g);
    fclose(list);
}

T_MAIN
