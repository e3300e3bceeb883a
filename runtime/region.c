/* First fit by lifetime: see region.h. At most 32 buffers, so the quadratic search is fine. */
#include "region.h"

#include <stdbool.h>

static size_t aligned(size_t bytes) {
    return (bytes + MOEC_REGION_ALIGN - 1) / MOEC_REGION_ALIGN * MOEC_REGION_ALIGN;
}

/* The end of a placed buffer that is alive then and overlaps [offset, offset + bytes); 0: none. */
static size_t conflict(const moec_region *r, size_t offset, size_t bytes, int first, int last) {
    for (int i = 0; i < r->count; i++) {
        bool alive = r->item[i].first <= last && first <= r->item[i].last;
        size_t end = r->item[i].offset + r->item[i].bytes;
        if (alive && r->item[i].bytes && r->item[i].offset < offset + bytes && offset < end)
            return end;
    }
    return 0;
}

int moec_region_add(moec_region *r, size_t bytes, int first, int last) {
    if (r->count == MOEC_REGION_MOST) return -1;
    size_t offset = 0, next;
    bytes = aligned(bytes);
    while (bytes && (next = conflict(r, offset, bytes, first, last))) offset = next;
    r->item[r->count].offset = offset;
    r->item[r->count].bytes = bytes;
    r->item[r->count].first = first;
    r->item[r->count].last = last;
    if (offset + bytes > r->bytes) r->bytes = offset + bytes;
    return r->count++;
}

void *moec_region_at(const moec_region *r, void *base, int item) {
    return item < 0 || !base ? NULL : (char *)base + r->item[item].offset;
}
