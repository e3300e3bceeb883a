/* Reading plans: see plan.h for the format. */
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs.h"

static const char magic[] = "moec plan 1\n";

bool moec_plan_find(const moec_plan *plan, const char *name, char *text, size_t bytes) {
    size_t n = strlen(name);
    for (const char *line = plan->text; line && *line;
         line += strcspn(line, "\n"), line += *line == '\n') {
        if (strncmp(line, name, n) || strncmp(line + n, " : ", 3)) continue;
        const char *value = line + n + 3;
        snprintf(text, bytes, "%.*s", (int)strcspn(value, "\n"), value);
        return true;
    }
    return false;
}

bool moec_plan_at(const char *path) {
    char begin[sizeof magic - 1];
    FILE *file = fopen(path, "r");
    bool is = file && fread(begin, sizeof begin, 1, file) == 1 && !memcmp(begin, magic, sizeof begin);
    if (file) fclose(file);
    return is;
}

/* Every line is "name : value", the last one too: a copy that was cut short is noticed. */
static moec_status check_lines(const moec_plan *plan, size_t bytes, moec_error *err) {
    int number = 2;
    if (strncmp(plan->text, magic, sizeof magic - 1))
        return moec_fail(err, MOEC_E_CORRUPT, "it does not start with \"moec plan 1\"");
    for (const char *at = plan->text + sizeof magic - 1; *at; number++) {
        size_t n = strcspn(at, "\n");
        const char *colon = strstr(at, " : ");
        if (n && (at[n] != '\n' || !colon || colon == at || colon > at + n))
            return moec_fail(err, MOEC_E_CORRUPT, "line %d is not \"name : value\": %.*s", number, (int)n, at);
        at += n + 1; /* an empty line is fine */
    }
    if (strlen(plan->text) != bytes) return moec_fail(err, MOEC_E_CORRUPT, "line %d has a zero byte", number);
    return MOEC_OK;
}

static moec_status check(const moec_plan *plan, const moec_spec *spec, const moec_target *target,
                         moec_error *err) {
    char found[MOEC_SPEC_BYTES], wanted[MOEC_SPEC_BYTES];
    if (!moec_plan_find(plan, "target", found, sizeof found))
        return moec_fail(err, MOEC_E_CORRUPT, "it names no target");
    if (strcmp(found, target->name))
        return moec_fail(err, MOEC_E_SPEC, "it is for target %s, not %s", found, target->name);
    moec_spec_print(spec, NULL, wanted, sizeof wanted);
    if (!moec_plan_find(plan, "spec", found, sizeof found)) return moec_fail(err, MOEC_E_CORRUPT, "it names no spec");
    if (strcmp(found, wanted))
        return moec_fail(err, MOEC_E_SPEC, "it is for spec\n  %s\nnot\n  %s", found, wanted);
    return MOEC_OK;
}

moec_status moec_plan_read(const char *path, const moec_spec *spec, const moec_target *target,
                           moec_plan *plan, moec_error *err) {
    size_t bytes;
    *plan = (moec_plan){0};
    if (!path) return MOEC_OK;
    MOEC_TRY(moec_file_read(path, &plan->text, &bytes, err));
    moec_hash_hex(plan->text, bytes, plan->hash);
    moec_status rc = check_lines(plan, bytes, err);
    if (!rc) rc = check(plan, spec, target, err);
    if (!rc) return MOEC_OK;
    moec_plan_free(plan);
    moec_context(err, rc, "plan %s", path);
    return moec_hint(err, rc, "moec tune SPEC -t TARGET writes a plan");
}

void moec_plan_free(moec_plan *plan) {
    free(plan->text);
    *plan = (moec_plan){0};
}
