/* The table of peers: one row per library and family. */
#include "peer.h"

#include <string.h>

static const struct { const char *family; const moec_peer *peer; } rows[] = {
    {"cpu", &moec_dnnl_peer},
    {"cpu", &moec_openblas_peer},
};

const moec_peer *moec_peer_at(const char *family, int index) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].family, family) && index-- == 0) return rows[i].peer;
    return NULL;
}
