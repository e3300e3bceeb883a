/* prune: an emitted kernel without the helpers that it does not use. */
#ifndef MOEC_PRUNE_H
#define MOEC_PRUNE_H

#include <stddef.h>

/* Shortens the body of a CUDA kernel in place; its new length. */
size_t moec_prune(char *text);

#endif
