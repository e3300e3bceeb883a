// Every instruction form against values worked out from the ISA manuals: one small kernel per
// row of vectors.def loads registers, runs the row's instructions, stores registers.
#include "../t.h"
#include "gcn.h"
#include "tool.h"

#include <stdlib.h>

enum { BOTH = 3, CDNA2 = 1, CDNA3 = 2, MAX_SLOTS = 24, WORDS = 64 };
static const struct vector {
    int archs;
    const char *code, *in, *out;
} vectors[] = {
#define T(archs, code, in, out) {archs, code, in, out},
#include "vectors.def"
};
enum { NVECTORS = sizeof vectors / sizeof *vectors };

struct slot { // one register: 'v', 'a' or 's', and what its lanes hold
    char kind;
    int reg;
    unsigned value[WORDS];
    int nvalues;
};

static unsigned half_bits(double x)
{
    _Float16 h = (_Float16)x;
    unsigned short u;
    memcpy(&u, &h, 2);
    return u;
}

// 5, -1, 0x1f, f1.5 (single), h1.5 (half), d1.5 (double)
static uint64_t parse_value(const char **p)
{
    char *end;
    uint64_t r = 0;
    if (**p == 'f') {
        float f = strtof(*p + 1, &end);
        memcpy(&r, &f, 4);
    } else if (**p == 'h')
        r = half_bits(strtod(*p + 1, &end));
    else if (**p == 'd') {
        double d = strtod(*p + 1, &end);
        memcpy(&r, &d, 8);
    } else
        r = **p == '-' ? (uint64_t)strtoll(*p, &end, 0) : strtoull(*p, &end, 0);
    *p = end;
    return r;
}

// "v1=5,6 s4=7*3,8 v2:=d1.5": the colon makes a pair of registers, *3 stands for three equal
// lanes. Lanes repeat the values.
static int parse_slots(const char *t, struct slot *s)
{
    int n = 0;
    while (*t) {
        while (*t == ' ')
            t++;
        if (!*t)
            break;
        struct slot x = {.kind = *t};
        bool wide = false;
        const char *eq = strchr(t, '=');
        wide = eq[-1] == ':';
        if (!strncmp(t, "vcc", 3))
            x.kind = 's', x.reg = 106;
        else if (!strncmp(t, "exec", 4))
            x.kind = 's', x.reg = 126;
        else if (!strncmp(t, "scc", 3))
            x.kind = 'c';
        else
            x.reg = atoi(t + 1);
        struct slot hi = x;
        hi.reg++;
        t = eq + 1;
        do {
            uint64_t v = parse_value(&t);
            long times = *t == '*' ? strtol(t + 1, (char **)&t, 10) : 1;
            for (long i = 0; i < times; i++) {
                x.value[x.nvalues++] = (unsigned)v;
                hi.value[hi.nvalues++] = (unsigned)(v >> 32);
            }
        } while (*t == ',' && t++);
        s[n++] = x;
        if (wide)
            s[n++] = hi;
    }
    return n;
}

static const char *scalar_name(int reg, char *buf)
{
    static const char *const special[] = {"vcc_lo", "vcc_hi"};
    if (reg == 106 || reg == 107)
        return special[reg - 106];
    if (reg == 126 || reg == 127)
        return reg == 126 ? "exec_lo" : "exec_hi";
    sprintf(buf, "s%d", reg);
    return buf;
}

// v127 holds the byte offset of the lane, s[90:91] and s[92:93] the two buffers.
static void emit(struct text *t, const struct vector *v, const char *name)
{
    struct slot s[MAX_SLOTS];
    char buf[16];
    asm_kernel(t, name);
    text_add(t, "  s_load_dwordx4 s[88:91], s[0:1], 0\n  s_waitcnt lgkmcnt(0)\n"
                "  v_lshlrev_b32 v127, 2, v0\n  s_nop 4\n");
    int n = parse_slots(v->in, s);
    for (int i = 0; i < n; i++)
        if (s[i].kind == 's')
            text_add(t, "  s_load_dword %s, s[88:89], %d\n", scalar_name(s[i].reg, buf), 256 * i);
        else
            text_add(t, "  global_load_dword %c%d, v127, s[88:89] offset:%d\n", s[i].kind,
                     s[i].reg, 256 * i % 4096);
    text_add(t, "  s_waitcnt vmcnt(0) lgkmcnt(0)\n  s_nop 7\n");
    char code[512];
    snprintf(code, sizeof code, "%s", v->code);
    for (char *p = strtok(code, ";"); p; p = strtok(NULL, ";"))
        text_add(t, "  %s\n", p);
    text_add(t, "  s_cselect_b32 s86, 1, 0\n  s_waitcnt vmcnt(0) lgkmcnt(0)\n"
                "  s_nop 15\n  s_nop 7\n  s_mov_b64 s[84:85], exec\n  s_mov_b64 exec, -1\n");
    n = parse_slots(v->out, s);
    for (int i = 0; i < n; i++) {
        char reg[8];
        sprintf(reg, "%c%d", s[i].kind, s[i].reg);
        if (s[i].kind == 's' || s[i].kind == 'c') {
            int r = s[i].kind == 'c' ? 86 : s[i].reg >= 126 ? s[i].reg - 126 + 84 : s[i].reg;
            text_add(t, "  v_mov_b32 v126, %s\n", scalar_name(r, buf));
            sprintf(reg, "v126");
        }
        text_add(t, "  global_store_dword v127, %s, s[90:91] offset:%d\n", reg, 256 * i);
    }
    asm_kernel_end(t, name);
}

static unsigned in_words[MAX_SLOTS * WORDS], out_words[MAX_SLOTS * WORDS];

static void run_one(gcn_object *o, const struct vector *v, const char *name)
{
    struct slot s[MAX_SLOTS];
    int n = parse_slots(v->in, s);
    for (int i = 0; i < n; i++)
        for (int l = 0; l < WORDS; l++)
            in_words[i * WORDS + l] = s[i].value[l % s[i].nvalues];
    memset(out_words, 0xaa, sizeof out_words);
    struct { void *in, *out, *unused; } args = {in_words, out_words, NULL};
    gcn_buffer buf[] = {{in_words, 0, sizeof in_words, false, "in"},
                        {out_words, 0, sizeof out_words, true, "out"}};
    gcn_launch l = {.kernel = name, .block = {64}, .kernarg = &args, .kernarg_bytes = 24,
                    .buffer = buf, .nbuffer = 2};
    gcn_result r;
    char msg[256] = "";
    if (gcn_run(o, &l, &r, msg, sizeof msg))
        T_FAIL("%s: %s", v->code, msg);
    for (size_t i = 0; i < r.findings.count; i++)
        T_FAIL("%s: %s: %s: %s", v->code, gcn_kind_name(r.findings.item[i].kind),
               r.findings.item[i].text, r.findings.item[i].detail);
    gcn_result_free(&r);
    n = parse_slots(v->out, s);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < WORDS; k++) {
            unsigned got = out_words[i * WORDS + k], want = s[i].value[k % s[i].nvalues];
            if (got == want)
                continue;
            T_FAIL("%s: %c%d lane %d is 0x%x, expected 0x%x", v->code, s[i].kind, s[i].reg, k,
                   got, want);
            break;
        }
}

static void run_arch(const char *arch, int bit)
{
    static char names[NVECTORS][8];
    const char *list[NVECTORS];
    struct text t = {0};
    size_t n = 0, bytes;
    char why[4000];
    if (tool_missing())
        T_SKIP("clang-19 or lld-19 not found");
    asm_begin(&t, arch);
    for (int i = 0; i < NVECTORS; i++) {
        sprintf(names[i], "k%d", i);
        if (!(vectors[i].archs & bit))
            continue;
        emit(&t, &vectors[i], names[i]);
        list[n++] = names[i];
    }
    asm_finish(&t, list, n, 4096);
    void *co = tool_compile(t.s, false, arch, &bytes, why, sizeof why);
    text_free(&t);
    if (!co) {
        T_FAIL("%s", why);
        return;
    }
    gcn_object *o = NULL;
    if (gcn_open(co, bytes, &o, why, sizeof why))
        T_FAIL("%s", why);
    for (int i = 0; i < NVECTORS && o; i++)
        if (vectors[i].archs & bit)
            run_one(o, &vectors[i], names[i]);
    printf("# %s: %zu vectors\n", arch, n);
    gcn_close(o);
    free(co);
}

T_CASE(vectors_gfx90a) { run_arch("gfx90a", CDNA2); }
T_CASE(vectors_gfx942) { run_arch("gfx942", CDNA3); }
T_MAIN
