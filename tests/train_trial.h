/* What the tests of training share: a folder with a text to learn, and files to compare. */
#ifndef MOEC_TESTS_TRAIN_TRIAL_H
#define MOEC_TESTS_TRAIN_TRIAL_H

#include "folder.h"

/* Where a file of that name is in the folder; holds for eight calls. */
static inline const char *at(const char *name) {
    static char path[8][600];
    static int turn;
    char *p = path[turn++ % 8];
    snprintf(p, 600, "%s", in_dir(name));
    return p;
}

/* Text with structure at several distances: counted rhymes. */
static inline void write_corpus(void) {
    static const char *const words[] = {"the ", "quick ", "brown ", "fox ", "jumps ", "over ", "lazy ", "dog, "};
    char *text = malloc(40000);
    size_t n = 0;
    if (!text) abort();
    for (unsigned i = 0; n < 39000; i++) {
        const char *w = words[(i * i + i / 3) % 8];
        memcpy(text + n, w, strlen(w));
        n += strlen(w);
    }
    put_file("corpus.txt", text, n);
    free(text);
}

/* Two layers; model sizes shared by all cases, so kernels are compiled once for each dtype. */
static const char base_model[] =
    "E=4,K=2,H=32,F=24,heads=4,kv=2,dim=8,V=256,layers=2,qk_norm=true,tied=true,init_std=0.15";

/* A file with a 0 behind it; NULL where there is none. The caller frees it. */
static inline void *slurp(const char *path, size_t *bytes) {
    char *data;
    return moec_file_read(path, &data, bytes, NULL) ? NULL : data;
}

static inline bool same_files(const char *a, const char *b, const char *name) {
    char pa[1200], pb[1200];
    size_t na, nb;
    snprintf(pa, sizeof pa, "%s/%s", a, name);
    snprintf(pb, sizeof pb, "%s/%s", b, name);
    void *x = slurp(pa, &na), *y = slurp(pb, &nb);
    bool same = x && y && na == nb && !memcmp(x, y, na);
    free(x);
    free(y);
    return same;
}

#endif
