/* The target table: one constant struct per machine (target.def). */
#include "gen.h"

#include <string.h>

static const moec_target targets[] = {
#define TARGET(name, family, dialect, suffix, flags, needs, fallback, bits, dot, amx, warp, shared, \
               regs, doc)                                                                           \
    {name, family, dialect, suffix, flags, needs, fallback, bits, dot, amx, warp, shared, regs, doc},
#include "target.def"
#undef TARGET
};

const moec_target *moec_target_at(int index) {
    int count = (int)(sizeof targets / sizeof *targets);
    return index >= 0 && index < count ? &targets[index] : NULL;
}

const moec_target *moec_target_find(const char *name) {
    for (int i = 0; moec_target_at(i); i++)
        if (!strcmp(targets[i].name, name)) return &targets[i];
    return NULL;
}
