/* compile: the shim's toolchain: emitted HIP text to a library for this CPU. */
#ifndef SHIM_COMPILE_H
#define SHIM_COMPILE_H

#include "../../runtime/toolchain.h"

extern const moec_toolchain shim_toolchain;

#endif
