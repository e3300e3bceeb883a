/* t_data: configs, token streams, windows and the formulas of a step. No device. */
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "t.h"
#include "train/config.h"
#include "train/data.h"
#include "train/schedule.h"

static char folder[256];

static const char *file_of(const char *name) {
    static char path[4][512];
    static int turn;
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "/tmp/moec-t-data-XXXXXX");
        if (!mkdtemp(folder)) abort();
    }
    char *p = path[turn++ % 4];
    snprintf(p, 512, "%s/%s", folder, name);
    return p;
}

static void write_bytes(const char *name, const void *data, size_t bytes) {
    FILE *f = fopen(file_of(name), "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes) abort();
    fclose(f);
}

static void write_text(const char *name, const char *text) { write_bytes(name, text, strlen(text)); }

/* ---- config ---- */

static const char model_text[] =
    "{E=8, K=2, H=64, F=32, heads=4, kv=2, dim=16, V=256, layers=2, tied=true}";

static moec_status load(const char *model, const char *rest, const char *override, train_config *c,
                        moec_error *err) {
    char text[2048];
    snprintf(text, sizeof text, "return {model=%s, data={path='x.txt'}%s}", model, rest);
    write_text("config.lua", text);
    return config_load(file_of("config.lua"), &override, override != NULL, c, err);
}

T_CASE(config_reads_groups_and_overrides) {
    train_config c;
    moec_error err = {0};
    T_EQ(load(model_text, ", train={lr=2e-3, steps=7, warmup=3}", "train.steps=9", &c, &err), MOEC_OK);
    T_EQ(c.spec.E, 8);
    T_EQ(c.tied, 1);
    T_EQ(c.steps, 9);
    T_NEAR(c.lr, 2e-3, 0);
    T_STR(c.path, "x.txt");
    T_EQ(load(model_text, "", "E=16", &c, &err), MOEC_OK);
    T_EQ(c.spec.E, 16);
}

T_CASE(config_model_from_a_file) {
    train_config c;
    moec_error err = {0};
    char text[1024];
    snprintf(text, sizeof text, "return %s", model_text);
    write_text("m.lua", text);
    T_EQ(load("'m.lua'", "", NULL, &c, &err), MOEC_OK);
    T_EQ(c.spec.heads, 4);
    T_EQ(config_load_model(file_of("m.lua"), &c, &err), MOEC_OK);
    model_size size;
    config_model_size(&c, 128, &size);
    /* 2 layers: attention 64*(2*64+2*32), norms 128, router 8*64, experts 8*3*64*32; final norm; V*H */
    T_EQ(size.total, 2 * (64 * 192 + 128 + 512 + 8 * 3 * 64 * 32) + 64 + 256 * 64);
    T_EQ(size.active, size.total - 2 * 6 * 3 * 64 * 32);
}

/* The published models: their sizes as counted from the published checkpoints. */
T_CASE(well_known_models_have_their_sizes) {
    static const struct { const char *file; int64_t total; } rows[] = {
        {"mixtral-8x7b", 46702792704}, {"mixtral-8x22b", 140620634112}, {"qwen3-30b-a3b", 30532122624},
        {"olmoe-1b-7b", 6919161856}, {"deepseek-moe-16b", 16375728128}, {"qwen3-235b-a22b", 235093634560},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char path[200];
        train_config c;
        model_size size;
        moec_error err = {0};
        snprintf(path, sizeof path, "examples/models/%s.lua", rows[i].file);
        if (config_load_model(path, &c, &err)) T_FAIL("%s", err.text);
        config_model_size(&c, 4096, &size);
        T_EQ(size.total, rows[i].total);
    }
}

T_CASE(config_errors_name_the_key) {
    train_config c;
    moec_error err = {0};
    static const struct { const char *model, *rest, *override, *part; } rows[] = {
        {"{E=8, K=9, H=64, F=32, heads=4, kv=2, dim=16, V=256}", "", NULL, "K=9 is larger than E=8"},
        {"{E=8, K=2, H=63, F=32, heads=4, kv=2, dim=16, V=256}", "", NULL, "multiple of 8"},
        {"{E=8, K=2, H=64, F=32, heads=4, kv=3, dim=16, V=256}", "", NULL, "kv=3 does not divide heads=4"},
        {model_text, ", train={stps=3}", NULL, "unknown key 'stps' in group train"},
        {model_text, ", train={lr='fast'}", NULL, "train.lr = fast"},
        {model_text, ", train={steps=1.5}", NULL, "train.steps = 1.5"},
        {model_text, ", train={warmup=90, steps=80}", NULL, "longer than train.steps"},
        {model_text, ", tra1n={}", NULL, "unknown group 'tra1n'"},
        {model_text, "", "nonsense", "not key=value"},
        {model_text, "", "lr", "not key=value"},
        {model_text, "", "data.format=csv", "neither text nor megatron"},
        {model_text, "", "V=128", "256 byte values"},
        {"{E=8", "", NULL, "config.lua:1:"},
        {model_text, ", train={run=os.getenv('HOME')}", NULL, "global 'os'"},
        {model_text, ", x=(function() while true do end end)()", NULL, "instructions"},
        {model_text, ", x=string.rep('x', 1 << 30)", NULL, "memory"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        T_EQ(load(rows[i].model, rows[i].rest, rows[i].override, &c, &err), MOEC_E_SPEC);
        T_HAS(err.text, rows[i].part);
    }
    T_EQ(config_load("/nonexistent/x.lua", NULL, 0, &c, &err), MOEC_E_IO);
    T_HAS(err.text, "/nonexistent/x.lua");
}

/* ---- schedule ---- */

T_CASE(schedule_warms_up_and_anneals) {
    T_NEAR(schedule_lr(1, 10, 100, 1, 0.1), 0.1, 1e-15);
    T_NEAR(schedule_lr(10, 10, 100, 1, 0.1), 1, 1e-15);
    T_NEAR(schedule_lr(55, 10, 100, 1, 0.1), 0.55, 1e-15); /* half way: the mean */
    T_NEAR(schedule_lr(100, 10, 100, 1, 0.1), 0.1, 1e-15);
    T_NEAR(schedule_lr(1000, 10, 100, 1, 0.1), 0.1, 1e-15);
    for (int64_t s = 11; s <= 100; s++)
        T_OK(schedule_lr(s, 10, 100, 1, 0.1) < schedule_lr(s - 1, 10, 100, 1, 0.1));
}

T_CASE(schedule_clips) {
    T_NEAR(schedule_clip(4, 1), 0.25, 0);
    T_NEAR(schedule_clip(0.5, 1), 1, 0);
    T_NEAR(schedule_clip(4, 0), 1, 0);
}

T_CASE(schedule_balances) {
    float bias[4] = {0};
    int64_t load[4] = {10, 2, 4, 4};
    schedule_balance(bias, load, 4, 0.1); /* mean 5: -, +, +, +; recentred by -0.05 */
    T_NEAR((double)bias[0], -0.15, 1e-7);
    T_NEAR((double)bias[1], 0.05, 1e-7);
    int32_t even[4] = {2, 2, 2, 2};
    float prob[4] = {1, 1, 1, 1};
    T_NEAR(schedule_aux_loss(even, prob, 4, 2, 4), 1, 1e-12);
    int32_t hot[4] = {8, 0, 0, 0};
    float hot_prob[4] = {4, 0, 0, 0};
    T_NEAR(schedule_aux_loss(hot, hot_prob, 4, 2, 4), 4, 1e-12);
}

/* ---- windows ---- */

T_CASE(shuffle_is_a_permutation) {
    static const int64_t counts[] = {1, 2, 3, 5, 16, 17, 1000, 4097};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        char seen[4097] = {0};
        for (int64_t i = 0; i < counts[c]; i++) {
            int64_t j = shuffle_index(i, counts[c], 42);
            T_NEED(j >= 0 && j < counts[c] && !seen[j]);
            seen[j] = 1;
        }
    }
    T_OK(shuffle_index(7, 4097, 1) != shuffle_index(7, 4097, 2));
}

T_CASE(text_windows) {
    enum { BYTES = 1000, SEQ = 16 };
    unsigned char text[BYTES];
    int32_t tokens[SEQ], targets[SEQ], again[SEQ];
    dataset set;
    moec_error err = {0};
    for (int i = 0; i < BYTES; i++) text[i] = (unsigned char)(i * 7);
    write_bytes("t.txt", text, BYTES);
    T_NEED(!dataset_open(&set, file_of("t.txt"), "text", 256, SEQ, 0.1, 3, &err));
    T_EQ(set.train_tokens, 900);
    T_EQ(set.held_windows, 6);
    T_EQ(set.train_windows, 55);
    int begins = 0, shifted = 0;
    char seen[BYTES] = {0};
    for (int64_t c = 0; c < 55 * 4; c++) {
        T_NEED(!dataset_train(&set, c, tokens, targets, &err));
        T_OK(!memcmp(tokens + 1, targets, (SEQ - 1) * 4));
        /* 7 is odd: the byte and its successor tell the position modulo 256 */
        if (c < 55) {
            int at = 0;
            while (at < 900 - SEQ && (text[at] != tokens[0] || seen[at])) at += 1;
            begins += at < 900 - SEQ;
            seen[at] = 1;
        } else shifted += 1;
    }
    T_EQ(begins, 55);
    T_EQ(shifted, 165);
    dataset_train(&set, 77, tokens, targets, &err);
    dataset_train(&set, 77, again, targets, &err);
    T_OK(!memcmp(tokens, again, sizeof tokens));
    T_NEED(!dataset_held(&set, 0, tokens, targets, &err));
    T_EQ(tokens[0], text[900]);
    T_EQ(targets[SEQ - 1], text[900 + SEQ]);
    dataset_close(&set);
}

T_CASE(text_errors) {
    dataset set;
    moec_error err = {0};
    T_EQ(dataset_open(&set, "/nonexistent.txt", "text", 256, 8, 0, 1, &err), MOEC_E_IO);
    T_HAS(err.text, "/nonexistent.txt");
    write_text("small.txt", "ab");
    T_EQ(dataset_open(&set, file_of("small.txt"), "text", 256, 8, 0, 1, &err), MOEC_E_INVAL);
    T_HAS(err.text, "too few");
    write_text("empty.txt", "");
    T_EQ(dataset_open(&set, file_of("empty.txt"), "text", 256, 8, 0, 1, &err), MOEC_E_IO);
    T_HAS(err.text, "empty");
    T_EQ(dataset_open(&set, "/tmp", "text", 256, 8, 0, 1, &err), MOEC_E_IO);
}

T_CASE(unigram_entropy) {
    dataset set;
    moec_error err = {0};
    double bits = 0;
    write_text("u.txt", "abababababababcdcdcdcdcdcdcd");
    T_NEED(!dataset_open(&set, file_of("u.txt"), "text", 256, 4, 0, 1, &err));
    T_NEED(!dataset_unigram_bits(&set, &bits, &err));
    T_NEAR(bits, 2, 1e-12);
    dataset_close(&set);
}

/* ---- Megatron's indexed datasets ---- */

typedef struct image { unsigned char data[8192]; size_t bytes; } image;

static void put(image *m, const void *data, size_t bytes) {
    memcpy(m->data + m->bytes, data, bytes);
    m->bytes += bytes;
}

/* An index of `count` sequences of the given sizes; gap bytes lie between them in the .bin. */
static void make_index(image *m, int code, const int32_t *sizes, int count, int width, int gap) {
    uint64_t version = 1, sequences = (uint64_t)count, documents = (uint64_t)count + 1;
    unsigned char c = (unsigned char)code;
    int64_t at = gap;
    m->bytes = 0;
    put(m, "MMIDIDX\0\0", 9);
    put(m, &version, 8);
    put(m, &c, 1);
    put(m, &sequences, 8);
    put(m, &documents, 8);
    put(m, sizes, (size_t)count * 4);
    for (int i = 0; i < count; i++) {
        put(m, &at, 8);
        at += sizes[i] * width + gap;
    }
    for (int64_t i = 0; i <= count; i++) put(m, &i, 8);
}

static void put_element(image *m, int code, int value) {
    double d = value;
    float f = (float)value;
    int64_t v = value;
    static const int width[] = {0, 1, 1, 2, 4, 8, 8, 4, 2};
    if (code == 6) put(m, &d, 8);
    else if (code == 7) put(m, &f, 4);
    else put(m, &v, (size_t)width[code]);
}

T_CASE(megatron_reads_every_type) {
    static const int width[] = {0, 1, 1, 2, 4, 8, 8, 4, 2};
    static const int32_t sizes[] = {5, 0, 9, 6};
    for (int code = 1; code <= 8; code++)
        for (int gap = 0; gap <= 16; gap += 16) {
            image idx = {.bytes = 0}, bin = {.bytes = 0};
            int value = 0;
            for (int s = 0; s < 4; s++) {
                memset(bin.data + bin.bytes, 0x7f, 16);
                bin.bytes += (size_t)gap;
                for (int i = 0; i < sizes[s]; i++) put_element(&bin, code, value++ * 3);
            }
            make_index(&idx, code, sizes, 4, width[code], gap);
            write_bytes("m.idx", idx.data, idx.bytes);
            write_bytes("m.bin", bin.data, bin.bytes);
            token_source s;
            moec_error err = {0};
            int32_t out[20];
            T_NEED(!megatron_open(&s, file_of("m"), 64, &err));
            T_EQ(s.tokens, 20);
            T_EQ(source_read(&s, 0, 20, out, &err), MOEC_OK);
            for (int i = 0; i < 20; i++) T_EQ(out[i], i * 3);
            T_EQ(source_read(&s, 4, 3, out, &err), MOEC_OK); /* across a border */
            T_EQ(out[0], 12);
            T_EQ(out[2], 18);
            T_EQ(source_read(&s, 18, 3, out, &err), MOEC_E_INVAL);
            source_close(&s);
        }
}

T_CASE(megatron_token_out_of_range) {
    static const int32_t sizes[] = {8};
    static const struct { int code, value; const char *part; } rows[] = {
        {4, -1, "token -1 at position 3"}, {4, 64, "token 64 at position 3"}, {7, 64, "token 64"},
    };
    for (int r = 0; r < 3; r++) {
        image idx = {.bytes = 0}, bin = {.bytes = 0};
        for (int i = 0; i < 8; i++) put_element(&bin, rows[r].code, i == 3 ? rows[r].value : 1);
        make_index(&idx, rows[r].code, sizes, 1, 4, 0);
        write_bytes("r.idx", idx.data, idx.bytes);
        write_bytes("r.bin", bin.data, bin.bytes);
        token_source s;
        moec_error err = {0};
        int32_t out[8];
        T_NEED(!megatron_open(&s, file_of("r"), 64, &err));
        T_EQ(source_read(&s, 0, 3, out, &err), MOEC_OK);
        T_EQ(source_read(&s, 0, 8, out, &err), MOEC_E_CORRUPT);
        T_HAS(err.text, rows[r].part);
        T_HAS(err.text, "model.V");
        source_close(&s);
    }
}

/* Every field damaged in turn, and every truncation: an error that names file and field, no crash. */
T_CASE(megatron_malformed) {
    static const int32_t sizes[] = {4, 4};
    static const struct { size_t at; unsigned char value; const char *field; } rows[] = {
        {0, 'X', "'magic'"}, {9, 2, "'version'"}, {17, 0, "'dtype'"}, {17, 9, "'dtype'"},
        {18, 0, "'sequence count'"}, {25, 0x7f, "'sequence count'"}, {33, 0x7f, "'document count'"},
        {37, 0x80, "'size'"}, {36, 0x10, "'pointer'"}, {49, 0x80, "'pointer'"}, {50, 5, "'pointer'"},
    };
    image good, bin = {.bytes = 0};
    token_source s;
    moec_error err = {0};
    make_index(&good, 8, sizes, 2, 2, 0);
    for (int i = 0; i < 8; i++) put_element(&bin, 8, i);
    write_bytes("b.bin", bin.data, bin.bytes);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        image m = good;
        m.data[rows[r].at] = rows[r].value;
        write_bytes("b.idx", m.data, m.bytes);
        T_EQ(megatron_open(&s, file_of("b"), 64, &err), MOEC_E_CORRUPT);
        T_HAS(err.text, "b.idx");
        T_HAS(err.text, rows[r].field);
        T_HAS(err.text, "hint:");
    }
    for (size_t n = 0; n < good.bytes; n++) {
        write_bytes("b.idx", good.data, n);
        T_EQ(megatron_open(&s, file_of("b"), 64, &err), MOEC_E_CORRUPT);
    }
    write_bytes("b.idx", good.data, good.bytes);
    write_bytes("b.bin", bin.data, bin.bytes - 1);
    T_EQ(megatron_open(&s, file_of("b"), 64, &err), MOEC_E_CORRUPT);
    T_EQ(megatron_open(&s, file_of("missing"), 64, &err), MOEC_E_IO);
    T_HAS(err.text, "missing.idx");
}

__attribute__((destructor)) static void clean(void) {
    char command[300];
    if (!folder[0]) return;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (system(command)) fprintf(stderr, "cannot remove %s\n", folder);
}

/* A hole of 100 MiB stands for a large file: pieces and the size are seen, the middle of a gap is not. */
T_CASE(large_files_are_told_apart_by_pieces) {
    enum { MIB = 1 << 20, BYTES = 100 * MIB + 77 };
    static const struct { size_t at; bool seen; } rows[] = {
        {0, true}, {MIB - 1, true}, {BYTES - 1, true}, {BYTES - MIB, true}, {MIB + MIB / 4, false}};
    unsigned char *map = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    token_source source = {.map = map, .map_bytes = BYTES};
    char whole[33], hash[33];
    int64_t bytes;
    T_NEED(map != MAP_FAILED);
    source_identity(&source, &bytes, whole);
    T_EQ(bytes, BYTES);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        map[rows[i].at] = 1;
        source_identity(&source, &bytes, hash);
        T_EQ(strcmp(hash, whole) != 0, rows[i].seen);
        map[rows[i].at] = 0;
    }
    source.map_bytes--;
    source_identity(&source, &bytes, hash);
    T_OK(strcmp(hash, whole));
    source.map_bytes = 64 * MIB; /* whole: no byte is passed over */
    source_identity(&source, &bytes, whole);
    map[MIB + MIB / 4] = 1;
    source_identity(&source, &bytes, hash);
    T_OK(strcmp(hash, whole));
    munmap(map, BYTES);
}

T_MAIN
