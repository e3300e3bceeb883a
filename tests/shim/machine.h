/* machine: the state of a running grid, shared by the files of this folder. */
#ifndef SHIM_MACHINE_H
#define SHIM_MACHINE_H

#include "shim.h"

enum lane_state { LANE_ENDED, LANE_RUNS, LANE_MEETS, LANE_AT_BARRIER };

/* What a lane owes the memory model: a release fence before a barrier, an acquire fence after it. */
enum { OWES_RELEASE = 1, OWES_ACQUIRE = 2 };

typedef struct lane {
    void *stack;                         /* its stack pointer while it does not run */
    struct shim_operands *operands;      /* of the operation it waits in */
    const void *where;                   /* ... and the place */
    uint8_t state, owes;
} lane;

/* Who touched a pair of bytes last. Stamps are times of the machine's clock, which ticks at barriers,
 * wave fences, and the begin of blocks and launches: older than the launch means never. */
typedef struct cell {
    uint32_t write, write_at, read, read_at;     /* stamp; offset of the code in the library */
    uint16_t writer, reader;                     /* threads */
    uint8_t write_flags, read_flags;
} cell;

enum {
    MANY_LANES = 1,   /* several lanes of one wave between two fences */
    MANY_WAVES = 2,   /* several waves of a block between two barriers */
    MANY_GROUPS = 4,  /* several blocks of the launch */
    BY_ATOMIC = 8, BY_ATOMIC_ALL = 16
};

typedef struct area {
    const char *name;
    uintptr_t low, high;
    cell *cells;
    bool writable, lds;
} area;

struct shim_machine {
    shim_host host;
    const shim_launch *launch;
    shim_counts counts;
    char finding[SHIM_TEXT_BYTES];
    bool found;

    /* the block */
    lane lanes[SHIM_MOST_THREADS];
    int running;                         /* the thread that runs */
    uint32_t wave_count;
    void *scheduler;                     /* stack pointer of shim_run's own context */
    char *stacks;

    /* time */
    uint32_t clock, launch_began, block_began, barrier_passed;
    uint32_t fence_passed[SHIM_MOST_THREADS / SHIM_LANES];

    /* memory: areas[0] is LDS */
    area areas[SHIM_MOST_REGIONS + 1];
    int area_count, last_area;
    cell lds_cells[SHIM_LDS_BYTES / 2];
    cell *cells;                         /* of global memory: reserved, touched where it is used */
    size_t cells_used;
};

/* Room for cells: address space that is reserved, not memory that is used. */
#define SHIM_CELLS_BYTES ((size_t)1 << 36)

extern shim_machine *shim_current;

static inline int shim_wave_of(int thread) { return thread / SHIM_LANES; }

/* ---- fibre.c ---- */
bool fibre_stacks_make(shim_machine *m);
void fibre_stacks_free(shim_machine *m);
/* A lane that will begin in shim_lane_begin on its own stack. */
void fibre_prepare(shim_machine *m, int thread);
/* Goes on elsewhere; returns when somebody goes on here. */
void fibre_switch(void **leave, void *enter);
void shim_lane_begin(void);
/* Calls entry with the arguments where the System V ABI of x86-64 wants them. */
void fibre_call(void (*entry)(void), const shim_arg *args, int count);

/* ---- wave.c ---- */
void wave_meet(struct shim_operands *operands);
void wave_fence(int order, const char *scope, const void *where);
void wave_barrier(const void *where);
/* Leaves the running lane, which waits or has ended: another one of its wave goes on, or shim_run. */
void wave_leave(shim_machine *m);

/* ---- mfma.c ---- */
/* D = A B + C for the lanes in `active`, which must be all 64. */
void mfma_compute(struct shim_operands *const lanes[SHIM_LANES], bool flush);

/* ---- numbers.c ---- */
float number_exp(float v);
float number_exp2(float v);
float number_log(float v);
float number_log2(float v);

/* ---- lanes.c: operations between lanes ---- */
void lanes_exchange(shim_machine *m, int wave, uint64_t active);

/* ---- watch.c ---- */
bool watch_begin(shim_machine *m);       /* areas of a launch; false with a finding */
void watch_resource(unsigned long base, unsigned long bytes, const void *where);
void watch_access(unsigned long address, unsigned long bytes, int access, const void *where);

/* ---- report.c ---- */
/* Describes what is wrong and ends the launch: does not return. */
_Noreturn void shim_report(shim_machine *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Like shim_report, from shim_run's context: returns. */
void shim_report_outside(shim_machine *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
void shim_fault(const char *what, const void *where);
/* "wave 1, lane 3" and "moec_up.hip:212"; static texts, four at a time. */
const char *name_of_thread(int thread);
const char *name_of_place(const shim_machine *m, uint32_t offset);
static inline uint32_t place_of(const shim_machine *m, const void *where) {
    return (uint32_t)((const char *)where - m->launch->image->low);
}

#endif
