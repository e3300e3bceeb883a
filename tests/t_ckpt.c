/* t_ckpt: checkpoints survive kills and full disks at every system call, and tell damage.
 *
 * durable.c is compiled into this program with its system calls counted, so that a child process can
 * be killed, or a write refused, at exactly the n-th of them, for every n. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

static int calls, kill_at, refuse_at; /* refuse_at: from that call on the disk is full */

static int strike(void) {
    calls++;
    if (calls == kill_at) raise(SIGKILL);
    return refuse_at && calls >= refuse_at;
}

/* Half of the data reaches the file before the kill, as a real one may do. */
static ssize_t struck_write(int fd, const void *data, size_t bytes) {
    if (calls + 1 == kill_at && write(fd, data, bytes / 2) < 0) abort();
    if (strike()) return errno = ENOSPC, -1;
    return write(fd, data, bytes);
}
static int struck_fsync(int fd) { return strike() ? (errno = ENOSPC, -1) : fsync(fd); }
static int struck_rename(const char *a, const char *b) { strike(); return rename(a, b); }
static int struck_mkdir(const char *p, mode_t m) { strike(); return mkdir(p, m); }
static int struck_close(int fd) { strike(); return close(fd); }
static int struck_unlink(const char *p) { strike(); return unlink(p); }
static int struck_rmdir(const char *p) { strike(); return rmdir(p); }
#define write struck_write
#define fsync struck_fsync
#define rename struck_rename
#define mkdir struck_mkdir
#define close struck_close
#define unlink struck_unlink
#define rmdir struck_rmdir
#include "../runtime/train/durable.c"
#undef write
#undef fsync
#undef rename
#undef mkdir
#undef close
#undef unlink
#undef rmdir

#include "t.h"
#include "train/ckpt.h"

/* ---- a model of three tensors whose content tells the step that saved it ---- */

enum { TENSORS = 3, TRAINED = 2 };
static const st_tensor shapes[TENSORS] = {
    {.name = "model.embed_tokens.weight", .rank = 2, .shape = {16, 8}, .count = 128},
    {.name = "model.norm.weight", .rank = 1, .shape = {8}, .count = 8},
    {.name = "model.bias", .rank = 1, .shape = {4}, .count = 4},
};

typedef struct toy { int64_t step; float stored[3][TENSORS]; int stores; } toy;

static float value(int64_t step, ckpt_kind kind, int64_t index) {
    return (float)(step * 100 + (int64_t)kind * 10 + index);
}

static moec_status fetch(void *user, ckpt_kind kind, int64_t index, float *data, moec_error *err) {
    (void)err;
    for (int64_t i = 0; i < shapes[index].count; i++)
        data[i] = value(((toy *)user)->step, kind, index) + (float)i / 1024;
    return MOEC_OK;
}

static moec_status store(void *user, ckpt_kind kind, int64_t index, const float *data, moec_error *err) {
    toy *t = user;
    (void)err;
    t->stored[kind][index] = data[0];
    t->stores++;
    return MOEC_OK;
}

static ckpt_tensors tensors_of(toy *t) {
    return (ckpt_tensors){shapes, TENSORS, TRAINED, fetch, store, t};
}

static char run[256];

static void new_run(void) {
    static int n;
    snprintf(run, sizeof run, "/tmp/moec-t-ckpt-%ld-%d", (long)getpid(), n++);
}

static void remove_run(void) {
    char command[300];
    snprintf(command, sizeof command, "rm -rf %s", run);
    if (system(command)) abort();
}

static moec_status save(int64_t step, int keep, moec_error *err) {
    toy t = {.step = step};
    ckpt_tensors list = tensors_of(&t);
    ckpt_state state = {.step = step, .cursor = step * 7, .seed = 5, .tokens = step * 11};
    char path[1024];
    return ckpt_save(run, &state, &list, "{}\n", keep, path, err);
}

static moec_status load_newest(toy *t, ckpt_state *state, moec_error *err) {
    char path[1024];
    int found = 0;
    ckpt_tensors list = tensors_of(t);
    memset(t, 0, sizeof *t);
    MOEC_TRY(ckpt_newest(run, path, &found, err));
    if (!found) return moec_fail(err, MOEC_E_IO, "no checkpoint");
    return ckpt_load(path, state, &list, err);
}

T_CASE(save_and_load) {
    toy t;
    ckpt_state state;
    moec_error err = {0};
    new_run();
    for (int64_t step = 1; step <= 4; step++) T_EQ(save(step, 2, &err), MOEC_OK);
    T_NEED(!load_newest(&t, &state, &err));
    T_EQ(state.step, 4);
    T_EQ(state.cursor, 28);
    T_EQ(state.seed, 5);
    T_EQ(state.tokens, 44);
    for (int i = 0; i < TENSORS; i++) T_NEAR((double)t.stored[0][i], (double)value(4, CKPT_WEIGHT, i), 0);
    T_NEAR((double)t.stored[2][1], (double)value(4, CKPT_V, 1), 0);
    T_EQ(t.stores, TENSORS + 2 * TRAINED);
    int64_t steps[8];
    T_EQ(ckpt_list(run, steps, 8), 2); /* keep = 2 */
    T_EQ(steps[0], 3);
    T_EQ(save(4, 2, &err), MOEC_OK); /* the same step again replaces it */
    T_NEED(!load_newest(&t, &state, &err));
    remove_run();
}

/* From step 9 back to 3 and on: what is saved now stays and is the newest, step 9 is left alone. */
T_CASE(a_run_that_went_back_keeps_what_it_saves) {
    toy t;
    ckpt_state state;
    moec_error err = {0};
    char latest[300];
    int64_t steps[8];
    new_run();
    T_NEED(!save(3, 2, &err) && !save(9, 2, &err));
    for (int64_t step = 4; step <= 6; step++) {
        T_EQ(save(step, 1, &err), MOEC_OK);
        T_NEED(!load_newest(&t, &state, &err));
        T_EQ(state.step, step);
    }
    T_EQ(ckpt_list(run, steps, 8), 2);
    T_EQ(steps[0], 6);
    T_EQ(steps[1], 9);
    snprintf(latest, sizeof latest, "%s/checkpoints/latest", run);
    T_NEED(!unlink(latest)); /* without it: the highest step */
    T_NEED(!load_newest(&t, &state, &err));
    T_EQ(state.step, 9);
    remove_run();
}

/* Kills a child at its n-th system call while it saves `step`; returns false when it got through. */
static bool killed_at(int n, int64_t step) {
    pid_t child = fork();
    int status = 0;
    if (child == 0) {
        kill_at = n;
        calls = 0;
        moec_error err = {0};
        _exit(save(step, 2, &err) != MOEC_OK);
    }
    waitpid(child, &status, 0);
    return WIFSIGNALED(status);
}

T_CASE(a_kill_at_any_call_keeps_the_last_complete_one) {
    moec_error err = {0};
    ckpt_state state;
    toy t;
    int n = 1, old = 0, fresh = 0;
    for (bool killed = true; killed; n++) {
        new_run();
        T_NEED(!save(1, 2, &err) && !save(2, 2, &err));
        killed = killed_at(n, 3);
        T_EQ(load_newest(&t, &state, &err), MOEC_OK);
        T_OK(state.step == 2 || state.step == 3);
        T_NEAR((double)t.stored[0][0], (double)value(state.step, CKPT_WEIGHT, 0), 0);
        old += state.step == 2;
        fresh += state.step == 3;
        ckpt_clean(run);
        T_EQ(save(4, 2, &err), MOEC_OK); /* leftovers are in nobody's way */
        T_NEED(!load_newest(&t, &state, &err) && state.step == 4);
        remove_run();
    }
    printf("# %d kills: %d left the old one, %d the new one\n", n - 2, old, fresh - 1);
    T_OK(old > 20 && fresh > 5);
}

T_CASE(a_full_disk_at_any_call_loses_nothing) {
    moec_error err = {0};
    ckpt_state state;
    toy t;
    int failed = 0;
    for (int n = 1; n < 200; n++) {
        new_run();
        T_NEED(!save(1, 2, &err));
        calls = 0;
        refuse_at = n;
        moec_status rc = save(2, 2, &err);
        refuse_at = 0;
        if (rc) {
            failed++;
            T_EQ(rc, MOEC_E_IO);
            T_HAS(err.text, run);
            T_HAS(err.text, "hint: no room");
        }
        T_NEED(!load_newest(&t, &state, &err));
        /* When only the folder's fsync was refused, the new one is there, though not promised. */
        T_OK(state.step == 2 || (rc && state.step == 1));
        T_EQ(save(3, 2, &err), MOEC_OK); /* and once there is room, it goes on */
        remove_run();
        if (!rc) break;
    }
    T_OK(failed > 15);
}

/* The real thing: the kernel refuses to let a file grow past the limit. */
T_CASE(a_file_size_limit) {
    moec_error err = {0};
    ckpt_state state;
    toy t;
    struct rlimit old, small;
    new_run();
    T_NEED(!save(1, 2, &err));
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 700;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    moec_status rc = save(2, 2, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    T_EQ(rc, MOEC_E_IO);
    T_HAS(err.text, "model.safetensors");
    T_HAS(err.text, "ulimit -f");
    T_NEED(!load_newest(&t, &state, &err));
    T_EQ(state.step, 1);
    remove_run();
}

static void flip(const char *path, long at, int bit) {
    FILE *f = fopen(path, "r+b");
    if (!f || fseek(f, at, SEEK_SET)) abort();
    int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ (1 << bit), f);
    fclose(f);
}

static long size_of(const char *path) {
    struct stat st;
    return stat(path, &st) ? -1 : (long)st.st_size;
}

/* Every byte of every file that is read back, one bit of it flipped: never loaded. */
T_CASE(a_flipped_bit_is_found) {
    static const char *const files[] = {"model.safetensors", "optimizer.safetensors", "state.json", "COMPLETE"};
    moec_error err = {0};
    ckpt_state state;
    toy t;
    new_run();
    T_NEED(!save(1, 2, &err));
    for (int f = 0; f < 4; f++) {
        char path[1200];
        snprintf(path, sizeof path, "%s/checkpoints/step-000000001/%s", run, files[f]);
        long bytes = size_of(path), checked = f == 3 ? 32 : bytes;
        for (long at = 0; at < checked; at++) {
            flip(path, at, (int)(at % 8));
            moec_status rc = load_newest(&t, &state, &err);
            if (rc != MOEC_E_CORRUPT || t.stores) T_FAIL("byte %ld of %s went unnoticed", at, files[f]);
            if (!strstr(err.text, files[f]) && f != 3) T_FAIL("no file name in: %s", err.text);
            flip(path, at, (int)(at % 8));
        }
    }
    char path[1200];
    snprintf(path, sizeof path, "%s/checkpoints/step-000000001/model.safetensors", run);
    flip(path, size_of(path) - 2, 3);
    T_EQ(load_newest(&t, &state, &err), MOEC_E_CORRUPT);
    T_HAS(err.text, "in tensor model.bias");
    remove_run();
}

T_CASE(a_truncated_file_is_found) {
    moec_error err = {0};
    ckpt_state state;
    toy t;
    char path[1200];
    new_run();
    T_NEED(!save(1, 2, &err));
    snprintf(path, sizeof path, "%s/checkpoints/step-000000001/model.safetensors", run);
    for (long n = size_of(path) - 1; n >= 0; n -= 13) {
        if (truncate(path, n)) abort();
        T_EQ(load_newest(&t, &state, &err), MOEC_E_CORRUPT);
        T_EQ(t.stores, 0);
    }
    remove_run();
}

T_CASE(another_model_is_named) {
    moec_error err = {0};
    ckpt_state state;
    toy t = {0};
    char path[1024];
    new_run();
    T_NEED(!save(1, 2, &err));
    ckpt_path(run, 1, path);
    st_tensor other[TENSORS];
    ckpt_tensors list = tensors_of(&t);
    memcpy(other, shapes, sizeof other);
    list.list = other;
    other[0].shape[0] = 32;
    T_EQ(ckpt_load(path, &state, &list, &err), MOEC_E_CORRUPT);
    T_HAS(err.text, "model.embed_tokens.weight has shape [16, 8], the config asks for [32, 8]");
    memcpy(other, shapes, sizeof other);
    snprintf(other[1].name, sizeof other[1].name, "model.layers.0.input_layernorm.weight");
    T_EQ(ckpt_load(path, &state, &list, &err), MOEC_E_CORRUPT);
    T_HAS(err.text, "it has no tensor model.layers.0.input_layernorm.weight");
    list.list = shapes;
    list.count = 2;
    T_EQ(ckpt_load(path, &state, &list, &err), MOEC_E_CORRUPT);
    T_HAS(err.text, "3 tensors, the config asks for 2");
    T_EQ(t.stores, 0);
    T_EQ(ckpt_load("/nonexistent/step-1", &state, &list, &err), MOEC_E_IO);
    T_HAS(err.text, "not a complete checkpoint");
    remove_run();
}

T_CASE(summary_counts) {
    moec_error err = {0};
    ckpt_summary s;
    char path[1024];
    new_run();
    T_NEED(!save(9, 2, &err));
    ckpt_path(run, 9, path);
    T_NEED(!ckpt_verify(path, &s, &err));
    T_EQ(s.state.step, 9);
    T_EQ(s.tensors, TENSORS);
    T_EQ(s.elements, 140);
    remove_run();
}

T_MAIN
