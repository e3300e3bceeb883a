// How many clocks LDS needs for one access of a wave: 32 banks of 4 bytes, lanes served in fixed
// groups, two different words of one bank in a group one after the other. The groups of b128 reads are
// those that public measurements of CDNA3 agree on; wide stores take neighbouring lanes.
#include "isa.h"

enum { BANKS = 32 };

static const u8 read_b128[4][8] = {{0, 1, 2, 3, 20, 21, 22, 23}, {4, 5, 6, 7, 16, 17, 18, 19},
                                   {8, 9, 10, 11, 28, 29, 30, 31}, {12, 13, 14, 15, 24, 25, 26, 27}};

static u32 group_clocks(const u32 *addr, u64 lanes, const u8 *lane, u32 n, u32 words)
{
    u32 used[BANKS] = {0}, seen[BANKS][LANES], most = 0;
    for (u32 i = 0; i < n; i++)
        for (u32 word = 0; lanes >> lane[i] & 1 && word < words; word++) {
            u32 at = addr[lane[i]] / 4 + word, bank = at % BANKS, k = 0;
            while (k < used[bank] && seen[bank][k] != at)
                k++;
            if (k < used[bank])
                continue;
            seen[bank][used[bank]++] = at;
            most = used[bank] > most ? used[bank] : most;
        }
    return most;
}

// Adds to `clocks` what the access takes, to `least` what it would take without conflicts.
void bank_clocks(const u32 *addr, u64 lanes, u32 bytes, bool load, u64 *clocks, u64 *least)
{
    u32 words = bytes / 4, n = BANKS / words;
    for (u32 first = 0; first < LANES; first += n) {
        u8 lane[BANKS];
        for (u32 i = 0; i < n; i++)
            lane[i] = load && words == 4 ? (u8)(first / 32 * 32 + read_b128[first / 8 % 4][i])
                                         : (u8)(first + i);
        u32 took = group_clocks(addr, lanes, lane, n, words);
        *clocks += took;
        *least += took > 0;
    }
}
