/* dl_gcn: plug-ins that stand in for an AMD GPU: the interpreter of code objects, the host shim. */
#ifndef MOEC_DL_GCN_H
#define MOEC_DL_GCN_H

#include "device.h"

/* Opens $MOEC_GCN when it holds a '/', else libmoec-shim.so beside the program when it is "shim", else
 * libmoec-gcn.so there. */
moec_status moec_gcn_open(const moec_device_ops **ops, moec_error *err);

#endif
