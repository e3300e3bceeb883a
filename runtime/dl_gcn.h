/* dl_gcn: the interpreter of AMD code objects, a plug-in that stands in for a GPU. */
#ifndef MOEC_DL_GCN_H
#define MOEC_DL_GCN_H

#include "device.h"

/* Opens $MOEC_GCN when it holds a '/', else libmoec-gcn.so beside the program. */
moec_status moec_gcn_open(const moec_device_ops **ops, moec_error *err);

#endif
