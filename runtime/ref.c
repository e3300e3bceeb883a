/* The oracle's front door: one table from op.def, argument checks, temporaries, unit roundoffs.
 * An op without an oracle does not link. */
#include "ref.h"

#include <string.h>

#include "ref_num.h"

static moec_status (*const ops[MOEC_OP_COUNT])(moec_ref *) = {
#define OP(name, ...) [MOEC_OP_##name] = moec_ref_op_##name,
#include "op.def"
#undef OP
};

static moec_status check(const moec_ref *ref, moec_error *err) {
    for (int i = 0; i < ref->op->arg_count; i++) {
        const moec_arg_info *info = &ref->op->args[i];
        const moec_ref_arg *a = &ref->arg[i];
        const void *data = moec_arg_dtype(info, ref->spec) == MOEC_T_I32 ? (void *)a->i : a->f;
        if (info->role == MOEC_SCALAR || info->optional || data) continue;
        return moec_fail(err, MOEC_E_INVAL, "oracle of %s: argument %s is missing", ref->op->name,
                         info->name);
    }
    return MOEC_OK;
}

moec_status moec_ref_run(moec_ref *ref, moec_error *err) {
    moec_status rc = check(ref, err);
    if (rc) return rc;
    rc = ops[ref->op->id](ref);
    for (int i = 0; i < ref->temp_count; i++) free(ref->temp[i]);
    free(ref->temp);
    ref->temp = NULL;
    ref->temp_count = 0;
    if (!rc) return MOEC_OK;
    return moec_fail(err, rc, "oracle of %s: %s", ref->op->name, moec_status_meaning(rc));
}

void *moec_ref_temp(moec_ref *ref, int64_t n, size_t bytes_each) {
    void **list = realloc(ref->temp, (size_t)(ref->temp_count + 1) * sizeof *list);
    if (!list) return NULL;
    ref->temp = list;
    void *block = calloc((size_t)(n ? n : 1), bytes_each);
    if (block) list[ref->temp_count++] = block;
    return block;
}

double moec_ref_u(moec_arg_type type) {
    if (type == MOEC_T_BF16) return 0x1p-8;
    return type == MOEC_T_F64 ? 0x1p-53 : U32;
}

double moec_ref_arg_u(const moec_ref *ref, const moec_ref_arg *arg) {
    return moec_ref_u(moec_arg_dtype(&ref->op->args[arg - ref->arg], ref->spec));
}

double moec_ref_u_acc(const moec_target *target) {
    return !strcmp(target->family, "cpu") ? U32 : 0x1p-22;
}
