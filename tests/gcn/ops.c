// The instruction table as a whole: the families' rows behind one hash of mnemonics.
#include "isa.h"

#include <string.h>

extern const struct op valu_ops[], compare_ops[], special_ops[], mfma_ops[], salu_ops[];

static const struct op *const families[] = {valu_ops, compare_ops, special_ops, mfma_ops, salu_ops};

// Linear search is enough: it runs once per instruction of an object, when it is opened.
const struct op *op_find(const char *name)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        for (const struct op *p = families[i]; p->name; p++)
            if (p->name[0] == name[0] && !strcmp(p->name, name))
                return p;
    return NULL;
}
