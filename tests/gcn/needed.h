// Which waits and barriers of a program did a run need? Decided from the run's trace and the text of
// the instructions, apart from the interpreter's own bookkeeping, so that each can be held against
// the other: what is needed must be reported when it is removed, what is not must not be.
//
// A wait is needed when with it left out (as far as it waits for the counters in question)
// - an instruction names a register that an outstanding operation loads into (where both are of one
//   kind that returns in order, loading into it again is harmless), or
// - an LDS access is outstanding while its wave passes a barrier, and behind that barrier another
//   wave makes an access that conflicts with it.
// A barrier is needed when, with it left out, two waves make accesses to LDS or to a buffer that
// conflict: one before it and one behind it, both between the same of the other barriers.
// Two accesses conflict when they share a byte, one of them writes, and not both are atomic.
#ifndef GCN_NEEDED_H
#define GCN_NEEDED_H
#include "gcn.h"

typedef struct needed needed;
typedef enum { NEEDED_VM = 1, NEEDED_LGKM = 2 } needed_counter;

// Reads the instructions of `object`, which must outlive the result; NULL when out of memory.
needed *needed_new(const gcn_object *object);
void needed_free(needed *n);
// Forgets every trace.
void needed_forget(needed *n);
// To be given to each run of the program as it is.
const gcn_trace *needed_trace(const needed *n);

size_t needed_count(const needed *n);            // instructions
bool needed_executed(const needed *n, size_t i); // by any wave
// The counters that instruction i waits for, 0 when it is no wait.
int needed_counters(const needed *n, size_t i);
bool needed_is_barrier(const needed *n, size_t i);
bool needed_wait(const needed *n, size_t i, int counters);
bool needed_barrier(const needed *n, size_t i);
// The encoding of wait i that no longer waits for `counters`.
uint32_t needed_relaxed(const needed *n, size_t i, int counters);

#endif
