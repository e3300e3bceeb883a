-- GEMM that sums over ragged rows (weight gradients) on AMD's matrix units, bf16.
local shapes = {
    dw2 = { m = "H", n = "F", a = "dout", b = "a_w", gather = "a" },
    dw1 = { m = "U", n = "H", a = "dhpre", b = "x", gather = "b" },
    linear_dw = { m = "F", n = "H", a = "dy", b = "x" },
}
local threads = 256
local function lds(c) return 2 * (c.bm + c.bn) * c.bk * 2 end -- two of each

return {
    ops = { "dw2", "dw1", "linear_dw" },
    targets = { "gfx942", "gfx90a" },
    dtypes = { "bf16" },
    applies = function(r) return not (r.op.name == "linear_dw" and r.spec.out == "f32") end, -- dy must be bf16
    tunables = {
        { name = "bm", values = { 128, 64, 256 }, doc = "rows of a tile of the gradient" },
        { name = "bn", values = { 128, 64, 256 }, doc = "columns of a tile of the gradient" },
        { name = "bk", values = { 32, 64 }, doc = "rows summed in a step" },
        { name = "mi", values = { 32, 16 }, doc = "side of one matrix instruction" },
        { name = "waves", values = { 2, 1 }, doc = "waves of a SIMD: 1 leaves 512 registers, 2 leaves 256" },
    },
    constraints = {
        { why = "the tiles do not fit into 64 KiB of LDS", ok = function(r) return lds(r.config) <= 65536 end },
        { why = "two waves a SIMD need two blocks, which do not fit into 64 KiB of LDS together",
          ok = function(r) return r.config.waves == 1 or 2 * lds(r.config) <= 65536 end },
        { why = "the accumulators leave too few registers",
          ok = function(r)
              local most = r.config.waves == 2 and (r.config.mi == 16 and 32 or 64) or 128 -- beside the operands
              return r.config.bm * r.config.bn / threads <= most
          end },
        { why = "a wave's part of the tile is smaller than one instruction",
          ok = function(r) return r.config.bm // 2 >= r.config.mi and r.config.bn // 2 >= r.config.mi end },
    },
    default = function() return { bm = 128, bn = 128, bk = 32, mi = 32, waves = 2 } end,
    derive = function(r)
        local s, c = shapes[r.op.name], r.config
        local across = lib.ceil_div(r.spec[s.n], c.bn)
        local down = lib.ceil_div(r.spec[s.m], c.bm)
        local groups = r.op.name == "linear_dw" and 1 or r.spec.E
        return {
            launch = { grid = ("%d"):format(lib.round_up(groups * down * across, 8)), block = threads },
            env = { shape = s },
            promise = lib.cdna_promise(c, lds(c), r.spec[s.m] < c.bm or r.spec[s.n] < c.bn),
            derived = {
                { "THREADS", threads, "of a block: four waves, 2 x 2 over the tile" },
                { "HEIGHT", r.spec[s.m], "rows of the result" },
                { "WIDTH", r.spec[s.n], "columns of the result" },
                { "BLOCKS", lib.round_up(groups * down * across, 8), "of the grid" },
                { "LDS", lds(c), "bytes of a block" },
            },
            tile = ("%dx%dx%d"):format(c.bm, c.bn, c.bk),
            flops = ("2*R*%s*%s"):format(s.m, s.n),
            bytes = ("2*(R*%s+R*%s)+4*E*%s*%s"):format(s.m, s.n, s.m, s.n),
            prose = {
                "A block makes BM x BN of one expert's gradient and goes through the expert's rows, BK at a time.",
                "Both operands lie with the summed rows as their slow index: 4 x 4 patches are turned in registers on",
                "the way to LDS. Buffer resources end with the expert's last row: past it both operands are zeros,",
                "so the neighbours' values never enter.",
            },
        }
    end,
}
