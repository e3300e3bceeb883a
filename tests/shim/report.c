/* Report: a finding in words, with the lines of the kernel's source. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "machine.h"

enum { TEXTS = 4, TEXT_BYTES = 160 };

static char *next_text(void) {
    static char texts[TEXTS][TEXT_BYTES];
    static int n;
    return texts[n++ % TEXTS];
}

const char *name_of_thread(int thread) {
    char *text = next_text();
    snprintf(text, TEXT_BYTES, "wave %d, lane %d", shim_wave_of(thread), thread % SHIM_LANES);
    return text;
}

/* Asks addr2line; the offset where there is none. A return address belongs to the call before it. */
const char *name_of_place(const shim_machine *m, uint32_t offset) {
    char *text = next_text(), command[TEXT_BYTES * 8];
    snprintf(text, TEXT_BYTES, "code offset %#x", offset);
    if (!m->launch->library || strchr(m->launch->library, '\'')) return text;
    snprintf(command, sizeof command, "addr2line -e '%.1000s' %#x 2>/dev/null", m->launch->library, offset - 1);
    FILE *f = popen(command, "r");
    char line[1024] = "";
    bool known = f && fgets(line, sizeof line, f) && line[0] != '?';
    if (f) pclose(f);
    if (!known) return text;
    line[strcspn(line, " \n")] = 0;
    const char *slash = strrchr(line, '/');
    const char *dot = strrchr(slash ? slash : line, ':');
    snprintf(text, TEXT_BYTES, "line %.20s", dot ? dot + 1 : line);
    return text;
}

static void describe(shim_machine *m, const char *format, va_list list) {
    int n = m->found ? 0 : vsnprintf(m->finding, sizeof m->finding, format, list);
    if (n > 0 && n < (int)sizeof m->finding)
        snprintf(m->finding + n, sizeof m->finding - (size_t)n, " (block %u)", m->host.group[0]);
    m->found = true;
}

void shim_report(shim_machine *m, const char *format, ...) {
    void *abandoned;
    va_list list;
    va_start(list, format);
    describe(m, format, list);
    va_end(list);
    fibre_switch(&abandoned, m->scheduler);
    __builtin_unreachable();
}

void shim_report_outside(shim_machine *m, const char *format, ...) {
    va_list list;
    va_start(list, format);
    describe(m, format, list);
    va_end(list);
}

void shim_fault(const char *what, const void *where) {
    shim_machine *m = shim_current;
    shim_report(m, "%s: %s, at %s", name_of_thread(m->running), what, name_of_place(m, place_of(m, where)));
}
