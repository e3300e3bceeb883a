/* Lint of emitted text: rules that keep a kernel readable by a stranger and free of template
 * remnants. Each rule is a row; the first breach is reported with its line. */
#include "gen.h"

#include <stdio.h>
#include <string.h>

enum { MAX_COLUMNS = 120 };

typedef struct rule {
    const char *what;
    bool (*breaks)(const char *line, size_t length);
} rule;

static bool find(const char *line, size_t length, const char *word) {
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= length; i++)
        if (!memcmp(line + i, word, n)) return true;
    return false;
}

static bool too_long(const char *line, size_t n) { (void)line; return n > MAX_COLUMNS; }
static bool has_tab(const char *line, size_t n) { return memchr(line, '\t', n) != NULL; }
static bool has_remnant(const char *line, size_t n) { return find(line, n, "${"); }
static bool has_directive(const char *line, size_t n) {
    while (n && *line == ' ') line++, n--;
    return n && *line == '%' && !find(line, n, "\"") && !find(line, n, ";");
}
static bool has_printf(const char *line, size_t n) { return find(line, n, "printf("); }
static bool has_include(const char *line, size_t n) { return find(line, n, "#include"); }
static bool trails(const char *line, size_t n) { return n && line[n - 1] == ' '; }
static bool not_ascii(const char *line, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)line[i] < 32 || (unsigned char)line[i] > 126) return true;
    return false;
}

static const rule rules[] = {
    {"is longer than 120 columns", too_long},
    {"holds a tab", has_tab},
    {"holds a ${ that was not expanded", has_remnant},
    {"begins with a template directive", has_directive},
    {"prints", has_printf},
    {"includes a header: emitted kernels are self-contained", has_include},
    {"ends in spaces", trails},
    {"holds a character that is not plain ASCII", not_ascii},
};

static const char *const header_keys[] = {" * op ",     " * spec ",     " * target ",   " * config ",
                                          " * cost ",   " * scratch ",  " * template ", " * reproduce"};

static moec_status check_line(const char *line, size_t length, int number, moec_error *err) {
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].breaks(line, length))
            return moec_fail(err, MOEC_E_TEMPLATE, "line %d %s:\n  %.*s", number, rules[i].what,
                             (int)(length < 160 ? length : 160), line);
    return MOEC_OK;
}

moec_status moec_lint(const char *source, moec_error *err) {
    int number = 0;
    for (const char *line = source; *line; number++) {
        size_t n = strcspn(line, "\n");
        MOEC_TRY(check_line(line, n, number + 1, err));
        line += n + (line[n] == '\n');
    }
    for (size_t i = 0; i < sizeof header_keys / sizeof *header_keys; i++)
        if (!strstr(source, header_keys[i]))
            return moec_fail(err, MOEC_E_TEMPLATE, "the header lacks the field \"%s\"",
                             header_keys[i] + 3);
    return MOEC_OK;
}
