/* Operations between lanes of a wave, each by its definition in the ISA manuals: one lane at a time. */
#include <string.h>

#include "machine.h"

/* Where lane `l` reads under a DPP control (CDNA3 ISA, table of DPP_CTRL); -1: nowhere. */
static int dpp_source(unsigned control, int l) {
    int row = l & ~15, in = l & 15, n = (int)(control & 15);
    switch (control >> 4) {
    case 0x00: case 0x01: case 0x02: case 0x03: case 0x04: case 0x05: case 0x06: case 0x07:
    case 0x08: case 0x09: case 0x0a: case 0x0b: case 0x0c: case 0x0d: case 0x0e: case 0x0f:
        return (l & ~3) + (int)(control >> 2 * (l & 3) & 3);                /* quad_perm */
    case 0x10: return in + n < 16 ? l + n : -1;                             /* row_shl: from n lanes up */
    case 0x11: return in >= n ? l - n : -1;                                 /* row_shr */
    case 0x12: return row + ((in - n) & 15);                                  /* row_ror */
    case 0x15: return row + n;                                              /* row_newbcast */
    default: break;
    }
    switch (control) {
    case 0x130: return l < 63 ? l + 1 : -1;                                 /* wave_shl:1 */
    case 0x134: return (l + 1) & 63;                                        /* wave_rol:1 */
    case 0x138: return l > 0 ? l - 1 : -1;                                  /* wave_shr:1 */
    case 0x13c: return (l - 1) & 63;                                        /* wave_ror:1 */
    case 0x140: return row + 15 - in;                                       /* row_mirror */
    case 0x141: return (l & ~7) + 7 - (l & 7);                              /* row_half_mirror */
    case 0x142: return l >= 16 ? row - 1 : -1;                              /* row_bcast:15 */
    case 0x143: return l >= 32 ? 31 : -1;                                   /* row_bcast:31 */
    default:    return -2;
    }
}

/* ds_swizzle: quads when bit 15 is set, else and, or, xor masks on the lane within its half of 32. */
static int swizzle_source(unsigned pattern, int l) {
    if (pattern & 0x8000) return (l & ~3) + (int)(pattern >> 2 * (l & 3) & 3);
    int in = l & 31;
    return (l & 32) + (((in & (int)(pattern & 31)) | (int)(pattern >> 5 & 31)) ^ (int)(pattern >> 10 & 31));
}

/* The value `a` of lane `from`, which must be there. */
static unsigned value_of(shim_machine *m, int wave, uint64_t active, int from, int reader) {
    const lane *first = m->lanes + wave * SHIM_LANES;
    if (active >> from & 1) return first[from].operands->a;
    shim_report(m, "%s takes a value from lane %d, which is not there, at %s", name_of_thread(wave * SHIM_LANES + reader),
           from, name_of_place(m, place_of(m, first[reader].where)));
}

static unsigned dpp(shim_machine *m, int wave, uint64_t active, int l, const struct shim_operands *o) {
    int from = dpp_source(o->b, l);
    if (from == -2) shim_report(m, "DPP control %#x has no meaning here", o->b);
    bool off = !(o->row_mask >> l / 16 & 1) || !(o->bank_mask >> l % 16 / 4 & 1);
    if (off) return o->c;
    if (from < 0 || !(active >> from & 1)) return o->bound_ctrl ? 0 : o->c;
    return m->lanes[wave * SHIM_LANES + from].operands->a;
}

static void permute(shim_machine *m, int wave, uint64_t active) {
    lane *first = m->lanes + wave * SHIM_LANES;
    for (int l = 0; l < SHIM_LANES; l++)
        if (active >> l & 1) first[l].operands->result = 0;
    for (int l = 0; l < SHIM_LANES; l++) {
        int to = active >> l & 1 ? (int)(first[l].operands->b / 4 % SHIM_LANES) : -1;
        if (to >= 0 && active >> to & 1) first[to].operands->result = first[l].operands->a;
    }
}

static uint64_t result_of(shim_machine *m, int wave, uint64_t active, int l, const struct shim_operands *o) {
    switch (o->op) {
    case SHIM_READLANE:      return value_of(m, wave, active, (int)(o->b % SHIM_LANES), l);
    case SHIM_READFIRSTLANE: return value_of(m, wave, active, __builtin_ctzll(active), l);
    case SHIM_BPERMUTE:      return value_of(m, wave, active, (int)(o->b / 4 % SHIM_LANES), l);
    case SHIM_SWIZZLE:       return value_of(m, wave, active, swizzle_source(o->b, l), l);
    case SHIM_DPP:           return dpp(m, wave, active, l, o);
    default:                 return 0;
    }
}

static void matrix(shim_machine *m, int wave, uint64_t active) {
    struct shim_operands *operands[SHIM_LANES];
    const lane *first = m->lanes + wave * SHIM_LANES;
    if (~active)
        shim_report(m, "a matrix instruction without lane %d at %s", __builtin_ctzll(~active),
               name_of_place(m, place_of(m, first[__builtin_ctzll(active)].where)));
    for (int l = 0; l < SHIM_LANES; l++) operands[l] = first[l].operands;
    mfma_compute(operands, m->launch->flush_subnormals);
    m->counts.mfma++;
}

/* readlane takes its lane from a scalar register: it must be the same in every lane. */
static void check_uniform(shim_machine *m, int wave, uint64_t active) {
    const lane *first = m->lanes + wave * SHIM_LANES;
    int a = __builtin_ctzll(active);
    for (int l = a; l < SHIM_LANES; l++)
        if (active >> l & 1 && first[l].operands->b != first[a].operands->b)
            shim_report(m, "readlane of different lanes (%u and %u) at %s", first[a].operands->b, first[l].operands->b,
                   name_of_place(m, place_of(m, first[l].where)));
}

void lanes_exchange(shim_machine *m, int wave, uint64_t active) {
    lane *first = m->lanes + wave * SHIM_LANES;
    const struct shim_operands *any = first[__builtin_ctzll(active)].operands;
    uint64_t vote = 0;
    switch (any->op) {
    case SHIM_SYNC:
        m->fence_passed[wave] = ++m->clock;
        return;
    case SHIM_MFMA:
        matrix(m, wave, active);
        return;
    case SHIM_PERMUTE:
        permute(m, wave, active);
        return;
    case SHIM_READLANE:
        check_uniform(m, wave, active);
        break;
    case SHIM_BALLOT:
        for (int l = 0; l < SHIM_LANES; l++)
            vote |= (uint64_t)(active >> l & 1 && first[l].operands->a) << l;
        break;
    default:
        break;
    }
    for (int l = 0; l < SHIM_LANES; l++) {
        if (!(active >> l & 1)) continue;
        struct shim_operands *o = first[l].operands;
        o->result = o->op == SHIM_BALLOT ? vote : result_of(m, wave, active, l, o);
    }
}
