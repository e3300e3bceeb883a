/* jit: emitted text -> cache -> compiler -> loaded module.
 *
 * Steps for a list of requests: emit each (one Lua state, in order), share what the device has
 * loaded already, find or build the rest in the cache with one thread per core (the only threads
 * of the library besides OpenMP's; each waits for one compiler), load. Either every module of the
 * list is delivered, or none and the first error in list order. */
#include "device.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "toolchain.h"

enum { MAX_REQUESTS = 4096 };

typedef struct job {
    moec_module *module;
    const moec_target *machine;
    const moec_toolchain *toolchain;
    moec_cache *cache;
    const char *id;                      /* of the toolchain */
    char key[33], source_name[256], binary[256], path[MOEC_PATH_BYTES];
    moec_status rc;
    moec_error err;
} job;

/* ---- one kernel through the cache ---- */

static moec_status build(void *user, const char *dir, moec_error *err) {
    job *j = user;
    return j->toolchain->compile(j->machine, dir, j->source_name, j->binary, err);
}

static void make_key(job *j) {
    char text[33 + MOEC_TOOLCHAIN_ID_BYTES];
    int n = snprintf(text, sizeof text, "%s %s", j->module->kernel.hash, j->id);
    moec_hash_hex(text, (size_t)n, j->key);
}

static void fetch(job *j) {
    const moec_kernel *k = &j->module->kernel;
    moec_artifact artifact = {
        .key = j->key, .source_name = j->source_name, .source = k->source,
        .source_bytes = k->source_bytes, .binary = j->binary, .toolchain = j->id,
        .build = build, .user = j,
    };
    j->rc = moec_cache_get(j->cache, &artifact, j->path, &j->err);
}

/* Another process may take a damaged entry away between check and load, and a compiler may have
 * written half a file and said that all is well: ask the cache again, without an entry that is
 * intact but does not load. The second failure is the answer. */
static moec_status load(moec_device *device, job *j) {
    j->rc = device->ops->load(device, j->path, j->module, &j->err);
    if (!j->rc || device->dead) return j->rc;
    moec_cache_evict(j->cache, j->key);
    fetch(j);
    return j->rc ? j->rc : (j->rc = device->ops->load(device, j->path, j->module, &j->err));
}

/* ---- the pool ---- */

typedef struct pool { job *jobs; int count; atomic_int next, failed; } pool;

static void *worker(void *data) {
    pool *p = data;
    for (;;) {
        int i = atomic_fetch_add(&p->next, 1);
        if (i >= p->count || atomic_load(&p->failed)) return NULL;
        fetch(&p->jobs[i]);
        if (p->jobs[i].rc) atomic_store(&p->failed, 1);
    }
}

static void fetch_all(job *jobs, int count) {
    enum { MOST = 64 };
    pthread_t threads[MOST];
    pool p = {.jobs = jobs, .count = count};
    int wanted = moec_cpu_count() < count ? moec_cpu_count() : count, started = 0;
    if (wanted > MOST) wanted = MOST;
    while (started < wanted - 1 && !pthread_create(&threads[started], NULL, worker, &p)) started++;
    worker(&p);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
}

/* ---- modules and the registry ---- */

static moec_module *registered(moec_device *device, const moec_kernel *kernel) {
    for (moec_module *m = device->modules; m; m = m->next)
        if (!strcmp(m->kernel.hash, kernel->hash) && !strcmp(m->kernel.symbol, kernel->symbol))
            return m;
    return NULL;
}

void moec_module_free(moec_device *device, moec_module *module) {
    if (!module || --module->references > 0) return;
    for (moec_module **at = &device->modules; *at; at = &(*at)->next)
        if (*at == module) {
            *at = module->next;
            break;
        }
    if (module->entry) device->ops->unload(device, module);
    moec_kernel_free(&module->kernel);
    free(module);
}

const moec_target *moec_serving_target(moec_gen *gen, const moec_request *request) {
    moec_request r = *request;
    while (r.target && !moec_gen_serves(gen, &r)) r.target = moec_target_find(r.target->fallback);
    return r.target;
}

/* The request on the target that serves it; emission says what is missing when none does. */
static moec_request served(moec_device *device, const moec_request *request) {
    moec_request r = *request;
    r.target = device->target;
    const moec_target *serving = moec_serving_target(device->gen, &r);
    if (serving) r.target = serving; /* else emission says what is missing */
    return r;
}

moec_status moec_device_config(moec_device *device, const moec_request *request, const char *text,
                               moec_config *config, moec_error *err) {
    if (!device->gen) MOEC_TRY(moec_gen_new(&device->gen, err));
    moec_request r = served(device, request);
    return moec_config_parse(device->gen, &r, text, config, err);
}

/* The module of a request, registered but perhaps not loaded yet. */
static moec_status obtain(moec_device *device, const moec_request *request, moec_module **out,
                          moec_error *err) {
    moec_module *module = calloc(1, sizeof *module);
    if (!module) return moec_fail(err, MOEC_E_NOMEM, "out of memory: module");
    moec_count(MOEC_COUNT_ALLOC);
    moec_request r = served(device, request);
    moec_status rc = moec_emit(device->gen, &r, &module->kernel, err);
    if (rc) {
        free(module);
        return rc;
    }
    moec_module *known = registered(device, &module->kernel);
    if (known) {
        moec_kernel_free(&module->kernel);
        free(module);
        module = known;
    } else {
        module->next = device->modules;
        device->modules = module;
    }
    module->references++;
    *out = module;
    return MOEC_OK;
}

moec_status moec_device_ready(moec_device *device, moec_error *err) {
    if (!device->gen) MOEC_TRY(moec_gen_new(&device->gen, err));
    return device->cache ? MOEC_OK : moec_cache_open(NULL, &device->cache, err);
}

static moec_status prepare(moec_device *device, const moec_toolchain **toolchain,
                           char id[MOEC_TOOLCHAIN_ID_BYTES], moec_error *err) {
    *toolchain = device->ops->toolchain;
    if (!*toolchain) *toolchain = moec_toolchain_find(device->target->family);
    if (!*toolchain)
        return moec_fail(err, MOEC_E_TOOL, "no toolchain for %s in this build",
                         device->target->name);
    MOEC_TRY((*toolchain)->identify(device->target, id, err));
    return moec_device_ready(device, err);
}

/* Builds and loads the modules that are not loaded yet. */
static moec_status complete(moec_device *device, const moec_toolchain *toolchain, const char *id,
                            moec_module **modules, int count, moec_error *err) {
    job *jobs = calloc((size_t)count, sizeof *jobs);
    if (!jobs) return moec_fail(err, MOEC_E_NOMEM, "out of memory: %d compile jobs", count);
    moec_count(MOEC_COUNT_ALLOC);
    int todo = 0;
    for (int i = 0; i < count; i++) {
        bool pending = !modules[i]->entry;
        for (int k = 0; pending && k < todo; k++) pending = jobs[k].module != modules[i];
        if (!pending) continue;
        job *j = &jobs[todo++];
        const moec_kernel *k = &modules[i]->kernel;
        *j = (job){.module = modules[i], .machine = device->target, .toolchain = toolchain,
                   .cache = device->cache, .id = id};
        snprintf(j->source_name, sizeof j->source_name, "%s%s", k->symbol, k->target->suffix);
        snprintf(j->binary, sizeof j->binary, "%s%s", k->symbol, toolchain->suffix);
        make_key(j);
    }
    fetch_all(jobs, todo);
    moec_status rc = MOEC_OK;
    for (int i = 0; i < todo && !rc; i++) rc = jobs[i].rc;
    for (int i = 0; i < todo && !rc; i++) rc = load(device, &jobs[i]);
    for (int i = 0; i < todo && rc; i++)
        if (jobs[i].rc) {
            rc = moec_fail(err, jobs[i].rc, "%s", jobs[i].err.text);
            moec_context(err, rc, "op %s on %s", jobs[i].module->kernel.op->name,
                         device->target->name);
            break;
        }
    free(jobs);
    return rc;
}

static void free_source(moec_module *module) {
    free(module->kernel.source);
    module->kernel.source = NULL;
}

moec_status moec_module_create_all(moec_device *device, const moec_request *requests, int count,
                                   moec_module **modules, moec_error *err) {
    char id[MOEC_TOOLCHAIN_ID_BYTES];
    const moec_toolchain *toolchain;
    if (count <= 0) return MOEC_OK;
    if (count > MAX_REQUESTS)
        return moec_fail(err, MOEC_E_INVAL, "%d kernels in one call, at most %d", count,
                         MAX_REQUESTS);
    memset(modules, 0, (size_t)count * sizeof *modules);
    MOEC_TRY(prepare(device, &toolchain, id, err));
    moec_status rc = MOEC_OK;
    for (int i = 0; i < count && !rc; i++) {
        rc = obtain(device, &requests[i], &modules[i], err);
        if (rc) moec_context(err, rc, "op %s on %s", requests[i].op->name, device->target->name);
    }
    if (!rc) rc = complete(device, toolchain, id, modules, count, err);
    for (int i = 0; i < count; i++) {
        if (rc) {
            moec_module_free(device, modules[i]);
            modules[i] = NULL;
        } else {
            free_source(modules[i]);
        }
    }
    return rc;
}

moec_status moec_module_create(moec_device *device, const moec_op *op, const moec_spec *spec,
                               const moec_config *config, int64_t tokens_hint, moec_module **module,
                               moec_error *err) {
    moec_request request = {.op = op, .spec = spec, .config = config, .tokens = tokens_hint};
    return moec_module_create_all(device, &request, 1, module, err);
}
