/* ldmatrix and mma.sync by the lane maps of the PTX ISA (sections on ldmatrix and on m16n8k16). */
#include <string.h>

#include "machine.h"

static float upper(unsigned pair, int which) { /* bf16 number 0 or 1 of a pair */
    unsigned bits = which ? pair & 0xffff0000u : pair << 16;
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

/* Lane l gives line l % 8 of block l / 8 and gets of each block numbers 2(l%4) + 0,1 of line l / 4; transposed,
 * number l / 4 of lines 2(l%4) + 0,1. The eight lines of a block must come from different banks. */
void sim_matrices(unsigned r[4], unsigned address, int transposed) {
    int l = sim_machine.thread % SIM_WARP;
    const unsigned line_at = sim_own("ldmatrix", address, 16);
    const sim_words *lines = sim_machine.meet(&line_at, 1);
    for (int block = 0; block < 4; block++) {
        unsigned short number[2];
        int sixteens = 0;
        for (int i = 0; i < 2; i++) {
            int line = transposed ? 2 * (l % 4) + i : l / 4, at = transposed ? l / 4 : 2 * (l % 4) + i;
            memcpy(&number[i], sim_machine.shared + lines[block * 8 + line][0] + 2 * at, 2);
        }
        r[block] = number[0] | (unsigned)number[1] << 16;
        for (int i = 0; i < 8; i++) sixteens |= 1 << lines[block * 8 + i][0] / 16 % 8;
        if (sixteens != 255) sim_report("ldmatrix with a bank conflict", address);
    }
}

/* A's pairs: registers 0, 1 rows l / 4 and + 8, columns 2(l%4) + 0,1; registers 2, 3 the same 8 columns on.
 * B's: rows 2(l%4) + 0,1 of column l / 4, register 1 the same 8 rows on. */
void sim_product(float c[4], const unsigned a[4], unsigned b0, unsigned b1) {
    const unsigned mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const sim_words *all = sim_machine.meet(mine, 6);
    int l = sim_machine.thread % SIM_WARP;
    for (int i = 0; i < 4; i++) {
        int row = l / 4 + i / 2 * 8, column = 2 * (l % 4) + i % 2;
        double sum = c[i];
        for (int k = 0; k < 16; k++) {
            unsigned left = all[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
            unsigned right = all[column * 4 + k % 8 / 2][4 + k / 8];
            sum += (double)upper(left, k % 2) * (double)upper(right, k % 2);
        }
        c[i] = (float)sum;
    }
}
