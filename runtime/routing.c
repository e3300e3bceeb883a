/* The routing block: see routing.h. */
#include "routing.h"

#include "region.h"

size_t moec_routing_place(const moec_spec *s, int64_t T, void *base, moec_routing *routing) {
    moec_region r = {0};
    size_t slots = (size_t)(T * s->K), E = (size_t)s->E;
    int expert = moec_region_add(&r, slots * sizeof(int32_t), 0, 0);
    int weight = moec_region_add(&r, slots * sizeof(float), 0, 0);
    int offsets = moec_region_add(&r, (E + 1) * sizeof(int32_t), 0, 0);
    int row_slot = moec_region_add(&r, slots * sizeof(int32_t), 0, 0);
    int slot_row = moec_region_add(&r, slots * sizeof(int32_t), 0, 0);
    int load = moec_region_add(&r, E * sizeof(int32_t), 0, 0);
    int prob_sum = moec_region_add(&r, E * sizeof(float), 0, 0);
    int z_sum = moec_region_add(&r, sizeof(double), 0, 0);
    *routing = (moec_routing){
        .expert = moec_region_at(&r, base, expert),
        .weight = moec_region_at(&r, base, weight),
        .offsets = moec_region_at(&r, base, offsets),
        .row_slot = moec_region_at(&r, base, row_slot),
        .slot_row = moec_region_at(&r, base, slot_row),
        .load = moec_region_at(&r, base, load),
        .prob_sum = moec_region_at(&r, base, prob_sum),
        .z_sum = moec_region_at(&r, base, z_sum),
    };
    return r.bytes;
}

int64_t moec_routing_most_tokens(const moec_spec *s) { return INT32_MAX / s->K; }
