-- rmsnorm, rmsnorm_bwd: one warp a row; the gain's gradient by column sums in a fixed order.
local threads, row_chunk = 256, 128
return {
    ops = { "rmsnorm", "rmsnorm_bwd" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local b = lib.type_bytes[r.spec.dtype]
        local rows = threads // r.target.warp
        local by_row = ("(T+%d)/%d"):format(rows - 1, rows)
        local slices = lib.ceil_div(r.spec.H // 8, 8)
        local chunks = ("((T+%d)/%d)"):format(row_chunk - 1, row_chunk)
        if r.op.name == "rmsnorm" then
            return {
                launch = { grid = by_row, block = threads, pdl = 1 },
                derived = { { "THREADS", threads, "of a block" } },
                flops = "5*T*H", bytes = ("%d*T*H"):format(4 * b),
                prose = { "One warp normalises one row: a pass for the sum of squares, a pass (from L1) to write." },
            }
        end
        return {
            template = "gpu_rmsnorm_bwd",
            launch = { grid = ("%d*%s;%d;%s"):format(slices, chunks, slices, by_row), block = threads, phases = 3,
                       scratch = "4*H*" .. chunks },
            derived = { { "THREADS", threads, "of a block" }, { "CHUNK", row_chunk, "rows that one block sums for dgain" } },
            flops = "12*T*H", bytes = ("%d*T*H"):format(6 * b),
            prose = { "Phase 0: dgain's terms, summed over CHUNK rows for a slice of 64 columns, go to scratch.",
                      "Phase 1: the chunks are summed in rising order. Phase 2: one warp a row makes dx; it comes",
                      "last because dx may overwrite dy." },
        }
    end,
}
