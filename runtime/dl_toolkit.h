/* dl_toolkit: where the libraries of NVIDIA's CUDA toolkit are found. */
#ifndef MOEC_DL_TOOLKIT_H
#define MOEC_DL_TOOLKIT_H

#include <stddef.h>

/* Opens lib`name`.so.13 or .12: the file that the environment's `variable` names and no other, or the
 * first that opens of the linker's path, /usr/local/cuda*, and the folders into which pip puts NVIDIA's
 * packages (system, /opt, $VIRTUAL_ENV, $CONDA_PREFIX, ~/.local). `needs`, when not NULL, is a library
 * of the same folder that is opened first, for all: where only that folder has it. NULL when none opens:
 * dlerror() has the reason of the last. */
void *moec_toolkit_open(const char *name, const char *variable, const char *needs);

/* The file that holds `function`, "" when that is not known. */
void moec_toolkit_file(void *function, char *path, size_t bytes);

#endif
