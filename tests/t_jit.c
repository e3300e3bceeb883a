/* From a request to a running module on the CPU: sharing, counters, and every way in which a
 * compiler can fail, each with its message. The op `add` stands for all. */
#include "t.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"
#include "fs.h"

static char root[64];

/* A fresh cache and the machine's own compiler. */
static void fresh(void) {
    if (*root) moec_dir_remove(root);
    strcpy(root, "/tmp/moec-t-jit.XXXXXX");
    if (!mkdtemp(root)) abort();
    setenv("MOEC_CACHE", root, 1);
    unsetenv("MOEC_CC");
    unsetenv("MOEC_COMPILE_TIMEOUT");
}

/* A stand-in compiler: answers --version, else runs `body` with the arguments. */
static void use_compiler(const char *body) {
    char path[MOEC_PATH_BYTES], text[1024];
    snprintf(path, sizeof path, "%s/fakecc", root);
    int n = snprintf(text, sizeof text, "#!/bin/sh\n[ \"$1\" = --version ] && echo fake 1.0 && exit 0\n%s\n",
                     body);
    if (moec_file_write(path, text, (size_t)n, false, NULL) || chmod(path, 0755)) abort();
    setenv("MOEC_CC", path, 1);
}

static moec_status create(moec_device *device, const char *spec, moec_module **module, moec_error *err) {
    moec_spec s;
    moec_status rc = moec_spec_parse(spec, &s, err);
    return rc ? rc : moec_module_create(device, moec_op_find("add"), &s, NULL, 0, module, err);
}

static moec_counters since(const moec_counters *before) {
    moec_counters c;
    moec_counters_read(&c);
    c.allocations -= before->allocations;
    c.compiles -= before->compiles;
    c.files_opened -= before->files_opened;
    c.launches -= before->launches;
    return c;
}

static moec_status add(moec_device *device, const moec_module *module, float *a, float *b, float *out,
                       int64_t n, moec_error *err) {
    moec_arg args[] = {{.ptr = a}, {.ptr = b}, {.ptr = out}, {.i64 = n}};
    return moec_module_launch(device, NULL, module, args, 0, 0, n, NULL, err);
}

T_CASE(compiles_once_then_runs_flat) {
    enum { N = 1000 };
    static float a[N], b[N], out[N];
    moec_device *device, *second;
    moec_module *m, *again, *other;
    moec_counters start, c;
    moec_error err = {0};
    fresh();
    for (int i = 0; i < N; i++) a[i] = (float)i, b[i] = 0.5f;
    moec_counters_read(&start);
    T_NEED(!moec_device_open("cpu", 2, &device, &err));
    T_NEED(!create(device, "dtype=f32", &m, &err));
    T_EQ(since(&start).compiles, 1);
    T_EQ(create(device, "dtype=f32 H=128", &again, &err), MOEC_OK); /* add does not depend on H */
    T_OK(m == again);
    moec_module_free(device, again);
    T_NEED(!moec_device_open("cpu", 1, &second, &err));
    T_EQ(create(second, "dtype=f32", &other, &err), MOEC_OK); /* another device: from the cache */
    T_EQ(since(&start).compiles, 1);
    T_EQ(add(device, m, a, b, out, N, &err), MOEC_OK);
    moec_counters_read(&start);
    for (int i = 0; i < 50; i++) T_EQ(add(device, m, a, b, out, N, &err), MOEC_OK);
    c = since(&start);
    T_EQ(c.allocations, 0);
    T_EQ(c.compiles, 0);
    T_EQ(c.files_opened, 0);
    T_EQ(c.launches, 50);
    for (int i = 0; i < N; i++) T_NEED(out[i] == (float)i + 0.5f);
    moec_device_close(second);
    moec_device_close(device);
}

T_CASE(the_thread_count_does_not_matter) {
    enum { N = 4099 };
    static float a[N], b[N], one[N], many[N];
    moec_error err = {0};
    fresh();
    for (int i = 0; i < N; i++) a[i] = 1.0f / (float)(i + 1), b[i] = (float)i * 0.1f;
    for (int threads = 1; threads <= 7; threads += 2) {
        moec_device *device;
        moec_module *m;
        T_NEED(!moec_device_open("cpu", threads, &device, &err));
        T_NEED(!create(device, "dtype=f32", &m, &err));
        memset(many, 0xff, sizeof many);
        T_EQ(add(device, m, a, b, threads == 1 ? one : many, N, &err), MOEC_OK);
        if (threads > 1) T_OK(!memcmp(one, many, sizeof one));
        moec_device_close(device);
    }
}

/* Different objects from different threads, all cold, on one cache. */
static void *one_thread(void *failed) {
    enum { N = 500 };
    float a[N], b[N], out[N];
    moec_device *device;
    moec_module *m;
    moec_error err = {0};
    for (int i = 0; i < N; i++) a[i] = (float)i, b[i] = 1;
    *(int *)failed = 1;
    if (moec_device_open("cpu", 2, &device, &err)) return NULL;
    if (!create(device, "dtype=f32", &m, &err) && !add(device, m, a, b, out, N, &err))
        *(int *)failed = out[N - 1] != (float)N;
    moec_device_close(device);
    return NULL;
}

T_CASE(devices_of_different_threads_do_not_meet) {
    enum { THREADS = 6 };
    pthread_t threads[THREADS];
    int failed[THREADS];
    moec_counters start;
    fresh();
    moec_counters_read(&start);
    for (int i = 0; i < THREADS; i++) T_NEED(!pthread_create(&threads[i], NULL, one_thread, &failed[i]));
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) T_EQ(failed[i], 0);
    T_EQ(since(&start).compiles, 1);
}

T_CASE(a_missing_argument_is_named) {
    float x[16] = {0};
    moec_device *device;
    moec_module *m;
    moec_error err = {0};
    fresh();
    T_NEED(!moec_device_open("cpu", 1, &device, &err));
    T_NEED(!create(device, "dtype=f32", &m, &err));
    T_EQ(add(device, m, x, NULL, x, 16, &err), MOEC_E_INVAL);
    T_HAS(err.text, "argument b is NULL");
    T_EQ(add(device, m, x, x, x, -1, &err), MOEC_E_INVAL);
    T_EQ(add(device, m, NULL, NULL, NULL, 0, &err), MOEC_OK);
    moec_device_close(device);
}

/* Opens a device, asks for `add`, and expects `want` with `words` in the message. */
static void expect(moec_status want, const char *words, moec_error *err) {
    moec_device *device;
    moec_module *m;
    if (moec_device_open("cpu", 1, &device, err)) {
        T_FAIL("cannot open the device: %s", err->text);
        return;
    }
    T_EQ(create(device, "dtype=f32", &m, err), want);
    if (want) T_HAS(err->text, words);
    T_OK(want ? m == NULL : m != NULL);
    moec_device_close(device);
}

T_CASE(no_compiler) {
    moec_error err = {0};
    char path[4096];
    fresh();
    setenv("MOEC_CC", "/nonexistent/cc", 1);
    expect(MOEC_E_TOOL, "MOEC_CC", &err);
    T_HAS(err.text, "hint:");
    unsetenv("MOEC_CC");
    snprintf(path, sizeof path, "%s", getenv("PATH"));
    setenv("PATH", root, 1);
    expect(MOEC_E_TOOL, "apt install clang-19", &err);
    setenv("PATH", path, 1);
    expect(MOEC_OK, "", &err);
}

T_CASE(the_compilers_message_reaches_the_user) {
    moec_error err = {0};
    fresh();
    use_compiler("echo 'kernel.c:3:1: error: this compiler likes nothing' >&2; exit 1");
    expect(MOEC_E_COMPILE, "this compiler likes nothing", &err);
    T_HAS(err.text, "op add");
    char path[MOEC_PATH_BYTES];
    const char *at = strstr(err.text, "the emitted file is ");
    T_NEED(at);
    at += strlen("the emitted file is ");
    snprintf(path, sizeof path, "%.*s", (int)strcspn(at, "\n"), at);
    T_OK(!strncmp(path, root, strlen(root)));
    T_OK(!access(path, R_OK));
}

T_CASE(a_hanging_compiler_is_killed) {
    moec_error err = {0};
    fresh();
    use_compiler("sleep 1000");
    setenv("MOEC_COMPILE_TIMEOUT", "0.3", 1);
    expect(MOEC_E_TIMEOUT, "MOEC_COMPILE_TIMEOUT", &err);
    unsetenv("MOEC_COMPILE_TIMEOUT");
}

T_CASE(a_time_that_is_none_is_refused) {
    static const char *const wrong[] = {"abc", "3 minutes", "0", "-1", "nan", "inf"};
    moec_error err = {0};
    fresh();
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setenv("MOEC_COMPILE_TIMEOUT", wrong[i], 1);
        expect(MOEC_E_INVAL, "is no number of seconds", &err);
    }
    setenv("MOEC_COMPILE_TIMEOUT", "", 1);
    expect(MOEC_OK, "", &err);
    unsetenv("MOEC_COMPILE_TIMEOUT");
}

T_CASE(a_compiler_that_crashes) {
    moec_error err = {0};
    fresh();
    use_compiler("kill -SEGV $$");
    expect(MOEC_E_COMPILE, "exit code 139", &err);
}

T_CASE(a_compiler_that_writes_nothing) {
    moec_error err = {0};
    fresh();
    use_compiler("exit 0");
    expect(MOEC_E_COMPILE, "exit code 0", &err);
}

#define TO_OUTPUT "for last; do [ \"$before\" = -o ] && out=$last; before=$last; done; "

T_CASE(a_compiler_that_writes_garbage) {
    moec_error err = {0};
    fresh();
    use_compiler(TO_OUTPUT "echo garbage > $out");
    expect(MOEC_E_IO, "cannot load", &err);
}

/* The first file is garbage, the second sound: one rebuild is enough, and the user notices nothing. */
T_CASE(a_binary_that_does_not_load_is_rebuilt) {
    moec_error err = {0};
    char body[1024];
    fresh();
    snprintf(body, sizeof body, TO_OUTPUT "if [ -e %s/once ]; then exec cc \"$@\"; fi; touch %s/once; "
             "echo garbage > $out", root, root);
    use_compiler(body);
    expect(MOEC_OK, "", &err);
}

T_CASE(a_compilers_flags_may_come_with_its_name) {
    moec_error err = {0};
    fresh();
    setenv("MOEC_CC", "env LC_ALL=C cc", 1);
    expect(MOEC_OK, "", &err);
}

T_CASE(bad_devices_are_explained) {
    static const struct { const char *name; moec_status rc; const char *words; } rows[] = {
        {"cpu-avx1024", MOEC_E_SPEC, "targets are: cpu "},
        {"", MOEC_E_SPEC, "unknown target"},
        {"cpu:x", MOEC_E_SPEC, "unknown target"},
        {"cpu:1", MOEC_E_DEVICE, "one CPU device"},
    };
    moec_error err = {0};
    moec_device *device;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        T_EQ(moec_device_open(rows[i].name, 0, &device, &err), rows[i].rc);
        T_HAS(err.text, rows[i].words);
        T_OK(device == NULL);
    }
    T_EQ(moec_device_open("cpu", -1, &device, &err), MOEC_E_INVAL);
}

T_CASE(memory_that_is_not_there) {
    moec_device *device;
    moec_error err = {0};
    void *p;
    T_NEED(!moec_device_open("cpu-scalar", 1, &device, &err));
    T_EQ(moec_alloc(device, (size_t)1 << 60, "the test's giant", &p, &err), MOEC_E_NOMEM);
    T_HAS(err.text, "1152921504606846976 bytes for the test's giant");
    T_OK(p == NULL);
    moec_device_close(device);
    moec_dir_remove(root);
}

T_MAIN
