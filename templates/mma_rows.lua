-- GEMM over ragged rows on NVIDIA's tensor cores through mma.sync, bf16: every GPU from sm_80 on. Where a
-- template for one machine applies (sm90_rows), this one stands back; gpu_rows remains for f32.
local shapes = { -- op -> inner size, columns
    up = { k = "H", n = "F" }, down = { k = "F", n = "H" }, dh = { k = "H", n = "F" }, dx = { k = "U", n = "H" },
    linear = { k = "H", n = "F" }, linear_dx = { k = "F", n = "H" },
}
local function paired(r) return r.op.name == "up" and r.spec.gated end
local function shared(c) return c.stages * (c.bm + c.bn) * c.bk * 2 end
local function columns(r) return paired(r) and r.config.bn // 2 or r.config.bn end

return {
    ops = { "up", "down", "dh", "dx", "linear", "linear_dx" },
    targets = { "sm_80", "sm_90a" }, generic = 1, columns = true,
    dtypes = { "bf16" },
    applies = function(r) return not (r.op.name == "linear_dx" and r.spec.out == "f32") end, -- dy must be bf16
    tunables = {
        { name = "bm", values = { 128, 64 }, doc = "rows of a tile" },
        { name = "bn", values = { 128, 256 }, doc = "columns of a tile (lines of B; half gate, half up)" },
        { name = "bk", values = { 32, 64 }, doc = "depth of a step in the sum" },
        { name = "spread", values = { 4, 2, 1 }, doc = "places of a substep's products where copies are started" },
        { name = "stages", values = { 4, 3, 5, 6 }, doc = "steps in shared memory, one multiplied, the others on their way" },
        { name = "group", values = { 8, 4, 16, 1 }, doc = "row tiles that share a column tile before the next column" },
    },
    constraints = {
        { why = "stages do not fit into shared memory", ok = function(r)
            return shared(r.config) <= r.target.shared_bytes end },
    },
    -- Two blocks share a multiprocessor. On an H100 steps of 64 were best (docs/notes.md); elsewhere three
    -- steps of 32 let two blocks fit into the 100 KiB of compute capability 8.6 and 8.9 too. Where all of dh's sum is
    -- one step there is no loop, and ptxas holds so much at once that tiles of 128 rows spill a register or two.
    default = function(r)
        local rows = r.tokens > 0 and r.tokens * r.spec.K // r.spec.E or 4096
        local hopper = r.target.name == "sm_90a"
        local bk = hopper and 64 or 32
        local one_step = r.op.name == "dh" and r.spec.H <= bk
        return { bm = (rows <= 64 or one_step) and 64 or 128, bn = 128, bk = bk, spread = hopper and 2 or 4, stages = 3,
                 group = 8 }
    end,
    derive = function(r)
        local s, c, name = shapes[r.op.name], r.config, r.op.name
        local dense = name:find("^linear") ~= nil
        local block = r.spec.columns > 0 and (name == "down" or name == "dx") -- of the H columns
        local width = block and r.spec.columns or r.spec[s.n]
        local across, n = lib.ceil_div(width, columns(r)), block and tostring(width) or s.n
        local parts = lib.ceil_div(r.spec.F, 64)
        local rows = dense and ("(T+%d)/%d"):format(c.bm - 1, c.bm) or ("(R+%d)/%d+min(R,E)"):format(c.bm - 1, c.bm)
        local grid = ("(%s+%d)/%d*%d"):format(rows, c.group - 1, c.group, c.group * across)
        local dh = name == "dh"
        local height, groups = dense and "T" or "R", dense and "1" or "E"
        return {
            launch = {
                grid = dh and ("%s;(R+%d)/%d"):format(grid, c.bn - 1, c.bn) or grid, block = c.bn,
                phases = dh and 2 or 1, scratch = dh and ("R*%d"):format(4 * parts) or "0",
                shared_bytes = shared(c), pdl = 1,
            },
            env = { paired = paired(r), blocks = c.bn == 128 and 2 or 1 },
            derived = {
                { "THREADS", c.bn, "of a block: 2 warps down, one across for every 64 columns" },
                { "INNER", r.spec[s.k], "length of the sums" },
                { "COLUMNS", width, "of the result" },
                { "COLUMN_TILES", across, "across" },
                { "SHARED", shared(c), "bytes of shared memory" },
            },
            tile = ("%dx%dx%d_s%d"):format(c.bm, c.bn, c.bk, c.stages),
            flops = ("2*%s*%s*%s"):format(height, s.k, name == "up" and "U" or n),
            bytes = ("2*(%s*%s+%s*%s+%s*%s*%s)"):format(height, s.k, height, n, groups, s.k, n),
            prose = {
                "A block makes BM x BN of the product of one expert, a warp BM / 2 x 64 of it. Steps of BK come by",
                "cp.async, STAGES - 1 ahead, rows of A gathered by row_slot on the way; what lies behind the last",
                "row, column or element of a sum is copied as zeros. Warps read 16 x 16 blocks with ldmatrix and",
                "multiply them with mma.sync. Sums stay in registers until each lane holds 8 neighbouring columns.",
                "Tiles follow from offsets alone: the grid is an upper bound, blocks past the last tile end at once.",
            },
        }
    end,
}
