-- rmsnorm: one warp a row. rmsnorm_bwd: one block for some rows, whose columns keep the gain's gradient in
-- registers; sums over blocks follow in a fixed order.
local threads, row_chunk = 256, 128

local function forward(r)
    local b, rows = lib.type_bytes[r.spec.dtype], threads // r.target.warp
    return {
        launch = { grid = ("(T+%d)/%d"):format(rows - 1, rows), block = threads, pdl = 1 },
        derived = { { "THREADS", threads, "of a block" } },
        flops = "5*T*H", bytes = ("%d*T*H"):format(4 * b),
        prose = { "One warp normalises one row: a pass for the sum of squares, a pass (from L1) to write." },
    }
end

-- A thread for 8 columns; as many blocks as run at once on some 128 multiprocessors.
local function backward(r)
    local b = lib.type_bytes[r.spec.dtype]
    local width = math.max(128, lib.round_up(r.spec.H // 8, r.target.warp))
    local resident = math.max(1, 2048 // b // width)
    local blocks = math.min(512, 128 * resident)
    return {
        template = "gpu_rmsnorm_bwd",
        launch = { grid = ("%d;(H+31)/32"):format(blocks), block = width, phases = 2, pdl = 1,
                   scratch = ("4*H*%d"):format(blocks) },
        derived = { { "THREADS", width, "of a block" }, { "RESIDENT", resident, "blocks of a multiprocessor" },
                    { "BLOCKS", blocks, "each takes an equal share of the rows" } },
        flops = "12*T*H", bytes = ("%d*T*H"):format(4 * b),
        prose = { "Phase 0: a block goes through its rows, the next one on its way while one is worked on. dx needs",
                  "one sum over the row; dgain's terms add up in registers and go to scratch at the end.",
                  "Phase 1: dgain is the sum of the blocks' parts in a fixed order." },
    }
end

-- Rows that do not fit in the registers of a block.
local function backward_wide(r)
    local b, rows = lib.type_bytes[r.spec.dtype], threads // r.target.warp
    local by_row = ("(T+%d)/%d"):format(rows - 1, rows)
    local slices = lib.ceil_div(r.spec.H // 8, 8)
    local chunks = ("((T+%d)/%d)"):format(row_chunk - 1, row_chunk)
    return {
        template = "gpu_rmsnorm_bwd_wide",
        launch = { grid = ("%d*%s;%d;%s"):format(slices, chunks, slices, by_row), block = threads, phases = 3,
                   scratch = "4*H*" .. chunks },
        derived = { { "THREADS", threads, "of a block" }, { "CHUNK", row_chunk, "rows that one block sums for dgain" } },
        flops = "12*T*H", bytes = ("%d*T*H"):format(4 * b),
        prose = { "Phase 0: dgain's terms, summed over CHUNK rows for a slice of 64 columns, go to scratch.",
                  "Phase 1: the chunks are summed in rising order. Phase 2: one warp a row makes dx; it comes",
                  "last because dx may overwrite dy." },
    }
end

return {
    ops = { "rmsnorm", "rmsnorm_bwd" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        if r.op.name == "rmsnorm" then return forward(r) end
        return (r.spec.H * lib.type_bytes[r.spec.dtype] <= 16384 and backward or backward_wide)(r)
    end,
}
