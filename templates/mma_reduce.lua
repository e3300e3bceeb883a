-- GEMM that sums over ragged rows (weight gradients) on NVIDIA's tensor cores through mma.sync, bf16: every GPU
-- from sm_80 on where sm90_reduce does not apply. gpu_reduce remains for f32.
local shapes = { -- op -> rows of the result (columns of A), its columns (columns of B)
    dw2 = { m = "H", n = "F", a = "dout", b = "a_w", gather = "a" },
    dw1 = { m = "U", n = "H", a = "dhpre", b = "x", gather = "b" },
    linear_dw = { m = "F", n = "H", a = "dy", b = "x" },
}
local function shared(r)
    local c = r.config
    return c.stages * ((c.bm + c.bn) * c.bk * 2 + (shapes[r.op.name].gather and 4 * c.bk or 0))
end

return {
    ops = { "dw2", "dw1", "linear_dw" },
    targets = { "sm_80", "sm_90a" }, generic = 1,
    dtypes = { "bf16" },
    applies = function(r) return not (r.op.name == "linear_dw" and r.spec.out == "f32") end, -- dy must be bf16
    tunables = {
        { name = "bm", values = { 128, 64 }, doc = "rows of a tile of the gradient" },
        { name = "bn", values = { 128, 256 }, doc = "columns of a tile of the gradient" },
        { name = "bk", values = { 32, 64 }, doc = "rows summed in a step" },
        { name = "spread", values = { 4, 2, 1 }, doc = "places of a substep's products where copies are started" },
        { name = "stages", values = { 4, 3, 5, 6 }, doc = "steps in shared memory, one multiplied, the others on their way" },
    },
    constraints = {
        { why = "stages do not fit into shared memory", ok = function(r) return shared(r) <= r.target.shared_bytes end },
    },
    default = function(r) -- as in mma_rows
        if r.target.name == "sm_90a" then return { bm = 128, bn = 128, bk = 64, spread = 2, stages = 3 } end
        return { bm = 128, bn = 128, bk = 32, spread = 4, stages = 3 }
    end,
    derive = function(r)
        local s, c = shapes[r.op.name], r.config
        local down, across = lib.ceil_div(r.spec[s.m], c.bm), lib.ceil_div(r.spec[s.n], c.bn)
        local dense = r.op.name == "linear_dw"
        local groups, rows = dense and "1" or "E", dense and "T" or "R"
        return {
            launch = { grid = ("%s*%d"):format(groups, down * across), block = c.bn, shared_bytes = shared(r), pdl = 1 },
            env = { shape = s, blocks = c.bn == 128 and 2 or 1 },
            derived = {
                { "THREADS", c.bn, "of a block: 2 warps down, one across for every 64 columns" },
                { "HEIGHT", r.spec[s.m], "rows of the result" },
                { "WIDTH", r.spec[s.n], "columns of the result" },
                { "SHARED", shared(r), "bytes of shared memory" },
            },
            tile = ("%dx%dx%d_s%d"):format(c.bm, c.bn, c.bk, c.stages),
            flops = ("2*%s*%s*%s"):format(rows, s.m, s.n),
            bytes = ("2*(%s*%s+%s*%s)+%d*%s*%s*%s"):format(rows, s.m, rows, s.n, r.spec.wgrad == "f32" and 4 or 2,
                groups, s.m, s.n),
            prose = {
                "A block makes BM x BN of one expert's gradient, a warp BM / 2 x 64 of it, and goes through the expert's",
                "rows, BK at a time. Steps come by cp.async, STAGES - 1 ahead; rows past the end are zeros in both",
                "operands, so the neighbours' values never enter. Both operands lie with the summed row as their line:",
                "ldmatrix transposes 8 x 8 blocks on the way to mma.sync. An expert without rows writes zeros (or",
                "leaves the gradient when accumulating).",
            },
        }
    end,
}
