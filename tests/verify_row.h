/* Verification as part of a test: counts the cases that ran, and fails with the command that shows a wrong one. */
#ifndef MOEC_TESTS_VERIFY_ROW_H
#define MOEC_TESTS_VERIFY_ROW_H

#include "t.h"
#include "verify.h"

static int cases;

static inline void take_row(void *user, const moec_verify_row *row) {
    char command[4096];
    (void)user;
    if (*row->skipped) return;
    cases++;
    if (!*row->verdict->fault) return;
    moec_verify_command(row, row->target, command, sizeof command);
    T_FAIL("%s: %s\n#   %s", row->op, row->verdict->fault, command);
}

#endif
