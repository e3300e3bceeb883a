/* region: places buffers with known lifetimes in one block of memory.
 *
 * A pass runs in stages 0, 1, 2, ...; a buffer lives from its first to its last stage. Buffers
 * whose lifetimes do not meet may share bytes. Plain data on the caller's stack, no allocation. */
#ifndef MOEC_REGION_H
#define MOEC_REGION_H

#include <stddef.h>

enum { MOEC_REGION_MOST = 32, MOEC_REGION_ALIGN = 256 };

typedef struct moec_region {
    int count;
    size_t bytes;   /* of the block so far */
    struct { size_t offset, bytes; int first, last; } item[MOEC_REGION_MOST];
} moec_region;

/* Adds a buffer at the lowest offset that is free during its life; returns its number. */
int moec_region_add(moec_region *region, size_t bytes, int first, int last);
/* Address of buffer `item` (from moec_region_add) in a block that starts at `base`; NULL for -1. */
void *moec_region_at(const moec_region *region, void *base, int item);

#endif
