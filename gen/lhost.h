/* lhost: the Lua state of a moec_gen. Internal to gen. */
#ifndef MOEC_LHOST_H
#define MOEC_LHOST_H

#include <lauxlib.h>
#include <lua.h>

#include "gen.h"

struct moec_gen {
    lua_State *L;
    size_t used_bytes, limit_bytes; /* of Lua's heap */
    int host;                       /* registry reference: the table host.lua returned */
};

/* Pushes host[function] and then the request table r. */
void lhost_begin(moec_gen *gen, const char *function, const moec_request *request);
/* Pushes the table { name = value } of a config. */
void lhost_push_config(lua_State *L, const moec_config *config);
/* Reads such a table from the top of the stack, with names in the order of `request`'s tunables. */
moec_status lhost_read_config(moec_gen *gen, const moec_request *request, moec_config *config,
                              moec_error *err);
/* Calls what lhost_begin pushed (plus `extra` arguments above r) under instruction and memory
 * limits. On failure the stack is as before lhost_begin and err says template, line and request. */
moec_status lhost_call(moec_gen *gen, const moec_request *request, int extra, int results,
                       moec_error *err);

/* lua_pcall of the function and `args` arguments on the stack under the same limits; 0 when fine. */
int lhost_limited_pcall(moec_gen *gen, int args, int results);

#endif
