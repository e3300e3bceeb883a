/* kernels_dump: the emitted sources of a run, to read. Emission is pure, so emitting a loaded kernel's
 * request again gives the very text that was compiled; the hash is compared to be sure. */
#include "train.h"

#include <string.h>

static moec_status write_one(moec_device *device, const moec_module *module, const char *folder,
                             moec_error *err) {
    const moec_kernel *loaded = &module->kernel;
    moec_kernel again = {0};
    char path[1400];
    durable_file file;
    moec_request request = {.op = loaded->op, .spec = &loaded->spec, .target = loaded->target,
                            .config = &loaded->config};
    MOEC_TRY(moec_emit(device->gen, &request, &again, err));
    snprintf(path, sizeof path, "%s/%s%s", folder, again.symbol, loaded->target->suffix);
    moec_status rc = strcmp(again.hash, loaded->hash)
                         ? moec_fail(err, MOEC_E_CORRUPT, "%s: emitted again, the text differs", path)
                         : durable_create(&file, path, err);
    if (!rc) {
        durable_write(&file, again.source, again.source_bytes);
        rc = durable_close(&file, err);
    }
    moec_kernel_free(&again);
    return rc;
}

moec_status train_write_kernels(moec_device *device, const char *folder, int *count, moec_error *err) {
    *count = 0;
    MOEC_TRY(durable_mkdir(folder, err));
    for (const moec_module *m = device->modules; m; m = m->next) {
        MOEC_TRY(write_one(device, m, folder, err));
        ++*count;
    }
    return MOEC_OK;
}
