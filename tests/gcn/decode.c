// From machine code to a table of decoded instructions.
//
// LLVM names the instruction and its operands; this file reads that text once, when the object
// is opened. Fields that the text shows in many spellings (branch targets, wait counts, DPP and
// SDWA controls) are taken from the encoding instead. Every instruction that cannot be decoded
// completely is listed and refused: a checker that guesses is worse than none.
#include "isa.h"
#include "llvm.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    u16 reg;
    u8 n;
} named_registers[] = {
    {"vcc", REG_VCC, 2}, {"vcc_lo", REG_VCC, 1}, {"vcc_hi", REG_VCC + 1, 1},
    {"exec", REG_EXEC, 2}, {"exec_lo", REG_EXEC, 1}, {"exec_hi", REG_EXEC + 1, 1},
    {"m0", REG_M0, 1}, {"flat_scratch", REG_FLAT_SCRATCH, 2},
    {"flat_scratch_lo", REG_FLAT_SCRATCH, 1}, {"flat_scratch_hi", REG_FLAT_SCRATCH + 1, 1},
};
static const struct {
    const char *name;
    u64 value;
} named_constants[] = {
    {"src_shared_base", SHARED_APERTURE}, {"src_private_base", PRIVATE_APERTURE},
    {"src_shared_limit", SHARED_APERTURE + 0xffffffff},
    {"src_private_limit", PRIVATE_APERTURE + 0xffffffff},
};

// "v5", "a[0:3]", "s[4:5]"
static bool parse_register(const char *t, struct operand *o)
{
    for (size_t i = 0; i < sizeof named_registers / sizeof *named_registers; i++)
        if (!strcmp(t, named_registers[i].name)) {
            o->kind = O_REG, o->reg = named_registers[i].reg, o->n = named_registers[i].n;
            return true;
        }
    int base = *t == 'v' ? REG_V : *t == 'a' ? REG_A : *t == 's' ? 0 : -1;
    int lo, hi, end = 0;
    if (base < 0)
        return false;
    if (sscanf(t + 1, "[%d:%d]%n", &lo, &hi, &end) != 2 || !end) {
        if (!isdigit((unsigned char)t[1]) || sscanf(t + 1, "%d%n", &lo, &end) != 1)
            return false;
        hi = lo;
    }
    if (t[1 + end] || lo < 0 || hi < lo || hi > 255 || hi - lo > 31 || (base == 0 && hi > 101))
        return false;
    o->kind = O_REG, o->reg = (u16)(base + lo), o->n = (u8)(hi - lo + 1);
    return true;
}

// Constants are stored at the width of the operand's type: an inline integer is sign-extended, a
// literal (shown in hex) fills the high half of a double and zero-extends otherwise.
static bool parse_constant(const char *t, int type, struct operand *o)
{
    for (size_t i = 0; i < sizeof named_constants / sizeof *named_constants; i++)
        if (!strcmp(t, named_constants[i].name)) {
            o->kind = O_CONST, o->value = named_constants[i].value;
            return true;
        }
    char *end;
    o->kind = O_CONST;
    if (!strncmp(t, "0x", 2)) {
        o->value = strtoull(t, &end, 16);
        if (type == T_F64)
            o->value <<= 32;
    } else if (strchr(t, '.')) {
        if (type == T_F64 || type == T_B64)
            o->value = as_u64(strtod(t, &end));
        else if (type == T_F16 || type == T_B16)
            o->value = half_down(strtof(t, &end));
        else
            o->value = as_u32(strtof(t, &end));
    } else
        o->value = (u64)strtoll(t, &end, 10);
    return end != t && !*end;
}

static bool parse_operand(char *t, int type, struct operand *o)
{
    memset(o, 0, sizeof *o);
    size_t n = strlen(t);
    if (n > 6 && !strncmp(t, "sext(", 5) && t[n - 1] == ')') {
        t[n - 1] = 0; // the encoding says so too; SDWA reads it from there
        return parse_operand(t + 5, type, o);
    }
    if (*t == '-' && strchr("vsa|m", t[1]) && t[1])
        o->neg = true, t++, n--;
    else if (n > 5 && !strncmp(t, "neg(", 4) && t[n - 1] == ')')
        t[n - 1] = 0, t += 4, n -= 5, o->neg = true;
    if (n > 2 && *t == '|' && t[n - 1] == '|')
        t[n - 1] = 0, t++, o->abs = true;
    if (!strcmp(t, "off")) {
        o->kind = O_OFF;
        return true;
    }
    return parse_register(t, o) || parse_constant(t, type, o);
}

static int list(const char *mods, const char *key, int otherwise)
{
    const char *p = strstr(mods, key);
    if (!p)
        return otherwise;
    int bits = 0, i = 0;
    for (p += strlen(key); *p && *p != ']'; p++)
        if (*p == '0' || *p == '1')
            bits |= (*p - '0') << i++;
    return bits;
}

static void parse_modifiers(struct inst *in, const char *mods)
{
    in->op_sel = (u8)list(mods, "op_sel:[", 0);
    in->op_sel_hi = (u8)list(mods, "op_sel_hi:[", in->op->exec == x_mix ? 0 : 7);
    in->neg_lo = (u8)list(mods, "neg_lo:[", 0);
    in->neg_hi = (u8)list(mods, "neg_hi:[", 0);
    in->clamp = strstr(mods, "clamp") != NULL;
    static const char *const omod[] = {"mul:2", "mul:4", "div:2"};
    for (u8 i = 0; i < 3; i++)
        if (strstr(mods, omod[i]))
            in->omod = (u8)(i + 1);
}

// Splits "dst, src, src mods" in place. Commas inside brackets do not count; a blank after an
// operand starts the modifiers. Returns the operands, and the modifiers in *mods.
static int split(char *t, char *part[6], char **mods)
{
    int n = 0, depth = 0;
    *mods = t + strlen(t);
    while (*t == ' ' || *t == '\t')
        t++;
    while (*t && n < 6) {
        part[n++] = t;
        for (; *t && !(depth == 0 && (*t == ',' || *t == ' ')); t++)
            depth += (*t == '[' || *t == '(') - (*t == ']' || *t == ')');
        char stop = *t;
        if (stop)
            *t++ = 0;
        if (stop == ' ') {
            *mods = t;
            break;
        }
        while (*t == ' ')
            t++;
    }
    return n;
}

static void add(struct regs *list_, u8 *n, u8 room, const struct operand *o)
{
    if (o->kind == O_REG && *n < room)
        list_[(*n)++] = (struct regs){o->reg, o->n};
}

// Register lists for the checks, from the row's signature.
static bool collect(struct inst *in)
{
    const char *sig = in->op->sig;
    if (strlen(sig) != in->no)
        return false;
    for (int i = 0; sig[i]; i++) {
        if (sig[i] == 'd' || sig[i] == 'x') {
            add(in->wr, &in->nwr, 5, &in->o[i]);
            in->nd++;
        }
        if (sig[i] == 's' || sig[i] == 'x')
            add(in->rd, &in->nrd, 10, &in->o[i]);
    }
    if (in->op->flags & OF_VCC_IN)
        in->rd[in->nrd++] = (struct regs){REG_VCC, 2};
    if (in->op->flags & OF_EXEC_OUT)
        in->wr[in->nwr++] = (struct regs){REG_EXEC, 2};
    // A partial write keeps part of the destination, so it depends on it.
    u32 flags = in->op->flags;
    bool partial = flags & OF_HALF_DST ||
                   (in->sdwa && (in->word[1] >> 8 & 7) != 6 && (in->word[1] >> 11 & 3) == 2);
    if (partial && in->no && is_vector(&in->o[0]))
        in->rd[in->nrd++] = (struct regs){in->o[0].reg, in->o[0].n};
    return true;
}

// Forms whose operands are not worth reading from text.
static bool text_free(const struct op *op)
{
    return op->exec == x_sopp || op->exec == x_branch || op->exec == x_nop;
}

static bool strip(char *name, const char *suffix)
{
    size_t n = strlen(name), k = strlen(suffix);
    if (n <= k || strcmp(name + n - k, suffix))
        return false;
    name[n - k] = 0;
    return true;
}

// Modifiers the interpreter gives no meaning to make an instruction unknown.
static bool modifiers_known(const struct inst *in, const char *mods)
{
    if (in->clamp && in->op->flags & OF_VALU && !(in->op->flags & OF_INT_CLAMP) &&
        in->op->dtype != T_F32 && in->op->dtype != T_F16 && in->op->dtype != T_F64)
        return false;
    if (in->op->flags & OF_MFMA && (strstr(mods, "cbsz") || strstr(mods, "abid") ||
                                    strstr(mods, "blgp") || strstr(mods, "neg:")))
        return false;
    return true;
}

static bool decode_one(struct inst *in, const char *text)
{
    char buf[256], *part[6], *mods;
    while (*text == ' ' || *text == '\t')
        text++;
    snprintf(buf, sizeof buf, "%s", text);
    snprintf(in->text, sizeof in->text, "%s", text);
    for (char *p = in->text; *p; p++)
        if (*p == '\t')
            *p = ' ';
    size_t n = strcspn(buf, " \t");
    char *rest = buf + n + (buf[n] != 0);
    buf[n] = 0;
    in->dpp = strip(buf, "_dpp");
    in->sdwa = strip(buf, "_sdwa");
    if (!strip(buf, "_e32"))
        strip(buf, "_e64");
    const struct op *op = op_find(buf);
    if (op && strstr(rest, " clamp")) { // integers that saturate are ops of their own
        char saturating[80];
        snprintf(saturating, sizeof saturating, "%.70s_sat", buf);
        op = op_find(saturating) ? op_find(saturating) : op;
    }
    bool memory = !op;
    if (!op && !(op = mem_op(buf)))
        return false;
    in->op = op;
    if (text_free(op))
        return true;
    in->no = (u8)split(rest, part, &mods);
    for (int i = 0; i < in->no; i++) {
        bool imm = !memory && op->sig[0] && strlen(op->sig) > (size_t)i && op->sig[i] == 'i';
        if (!imm && !parse_operand(part[i], op->type, &in->o[i]))
            return false;
    }
    parse_modifiers(in, mods);
    if (memory)
        return mem_decode(in, mods);
    return modifiers_known(in, mods) && collect(in);
}

static void list_unknown(char *msg, size_t room, const char *text, int seen)
{
    if (!msg || !room)
        return;
    size_t at = strlen(msg);
    if (seen == 0)
        snprintf(msg, room, "unknown instructions: %s", text);
    else if (!strstr(msg, text) && at + strlen(text) + 3 < room)
        snprintf(msg + at, room - at, "; %s", text);
}

static gcn_status index_kernels(gcn_object *o, char *msg, size_t room)
{
    for (size_t i = 0; i < o->nkernel; i++) {
        struct kernel *k = &o->kernel[i];
        u32 lo = k->first, hi = k->last;
        k->first = (u32)o->ninst;
        k->last = 0;
        for (u32 j = 0; j < o->ninst; j++) {
            if (o->inst[j].address < lo || o->inst[j].address >= hi)
                continue;
            if (j < k->first)
                k->first = j;
            k->last = j + 1;
        }
        if (k->first >= k->last || !o->inst_at[k->entry / 4]) {
            if (msg)
                snprintf(msg, room, "kernel %s has no instructions", k->report.name);
            return GCN_E_OBJECT;
        }
    }
    return GCN_OK;
}

// Fill after the last function is not code: s_code_end, s_nop or zeros.
static bool in_function(const gcn_object *o, u64 at)
{
    for (size_t i = 0; i < o->nkernel; i++)
        if (at >= o->kernel[i].first && at < o->kernel[i].last)
            return true;
    return false;
}

gcn_status decode_text(gcn_object *o, char *msg, size_t room)
{
    struct disassembler d;
    if (!llvm_open(&d, o->arch == ARCH_GFX90A ? "gfx90a" : "gfx942", msg, room))
        return GCN_E_LLVM;
    o->inst = calloc((o->text_hi - o->text_lo) / 4 + 1, sizeof *o->inst);
    o->inst_at = calloc(o->image_bytes / 4 + 1, sizeof *o->inst_at);
    gcn_status st = o->inst && o->inst_at ? GCN_OK : GCN_E_NOMEM;
    int unknown = 0;
    for (u64 at = o->text_lo; !st && at + 4 <= o->text_hi;) {
        char text[256] = "";
        size_t n = d.instruction(d.context, o->image + at, o->text_hi - at, at, text, sizeof text);
        struct inst *in = &o->inst[o->ninst];
        memset(in, 0, sizeof *in);
        in->address = (u32)at;
        in->bytes = (u32)(n ? n : 4);
        memcpy(in->word, o->image + at, in->bytes < 8 ? in->bytes : 8);
        if (n && decode_one(in, text))
            o->inst_at[at / 4] = (u32)++o->ninst;
        else if (in_function(o, at)) {
            char line[160];
            snprintf(line, sizeof line, "%s", n ? in->text : "(not an instruction)");
            list_unknown(msg, room, line, unknown++);
        }
        at += in->bytes;
    }
    llvm_close(&d);
    if (unknown)
        return GCN_E_UNKNOWN;
    return st ? st : index_kernels(o, msg, room);
}
