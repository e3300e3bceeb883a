-- GEMM over ragged rows on AMD's matrix units (gfx90a, gfx942), bf16: four waves share a tile in LDS.
local shapes = { -- op -> inner size, columns
    up = { k = "H", n = "F" }, down = { k = "F", n = "H" }, dh = { k = "H", n = "F" }, dx = { k = "U", n = "H" },
    linear = { k = "H", n = "F" }, linear_dx = { k = "F", n = "H" },
}
local threads = 256
local function paired(r) return r.op.name == "up" and r.spec.gated end
local function lds(c) return 2 * (c.bm + c.bn) * c.bk * 2 end -- two of each

return {
    ops = { "up", "down", "dh", "dx", "linear", "linear_dx" },
    targets = { "gfx942", "gfx90a" },
    dtypes = { "bf16" }, columns = true,
    applies = function(r) return not (r.op.name == "linear_dx" and r.spec.out == "f32") end, -- dy must be bf16
    tunables = {
        { name = "bm", values = { 128, 64, 256 }, doc = "rows of a tile" },
        { name = "bn", values = { 128, 64, 256 }, doc = "columns of a tile (rows of B; half gate, half up)" },
        { name = "bk", values = { 32, 64 }, doc = "steps of the inner size in LDS, twice" },
        { name = "mi", values = { 32, 16 }, doc = "side of one matrix instruction" },
        { name = "waves", values = { 1, 2 }, doc = "waves of a SIMD: 1 leaves 512 registers, 2 leaves 256" },
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
        { why = "an expert's weights have 4 GiB or more, further than a buffer resource reaches",
          ok = function(r)
              local s = shapes[r.op.name]
              local columns = r.op.name == "up" and r.spec.U or r.spec[s.n]
              return columns * r.spec[s.k] * 2 < 0xfffffff0
          end },
        { why = "a wave has no even number of products for gate and up",
          ok = function(r) return not paired(r) or r.config.bn // 2 // r.config.mi % 2 == 0 end },
        { why = "a wave's part of the tile is smaller than one instruction",
          ok = function(r) return r.config.bm // 2 >= r.config.mi and r.config.bn // 2 >= r.config.mi end },
    },
    default = function(r)
        local rows = r.tokens > 0 and r.tokens * r.spec.K // r.spec.E or 4096
        if rows <= 64 then return { bm = 64, bn = 128, bk = 32, mi = 32, waves = 2 } end
        return { bm = 128, bn = 128, bk = 32, mi = 32, waves = 2 }
    end,
    derive = function(r)
        local s, c = shapes[r.op.name], r.config
        local block = r.spec.columns > 0 and (r.op.name == "down" or r.op.name == "dx")
        local n = block and r.spec.columns or r.spec[s.n]
        if block then s = { k = s.k, n = tostring(n) } end
        local width = paired(r) and c.bn // 2 or c.bn
        local dense = r.op.name:find("^linear") ~= nil
        local column_tiles = lib.ceil_div(n, width)
        local rows = dense and ("((T+%d)/%d)"):format(c.bm - 1, c.bm) or ("((R+%d)/%d+E)"):format(c.bm - 1, c.bm)
        local grid = ("(%s*%d+7)/8*8"):format(rows, column_tiles)
        local dh = r.op.name == "dh"
        return {
            launch = { grid = dh and grid .. ";(R+255)/256" or grid, block = threads, phases = dh and 2 or 1,
                       scratch = dh and ("4*(R+1)*%d"):format(column_tiles) or "0" },
            promise = lib.cdna_promise(c, lds(c), n < width),
            derived = {
                { "THREADS", threads, "of a block: four waves, 2 x 2 over the tile" },
                { "INNER", r.spec[s.k], "length of the sums" },
                { "COLUMNS", n, "of the result" },
                { "COLUMN_TILES", column_tiles, "across" },
                { "LDS", lds(c), "bytes of a block" },
            },
            tile = ("%dx%dx%d"):format(c.bm, c.bn, c.bk),
            flops = ("2*R*%s*%s"):format(s.k, r.op.name == "up" and "U" or s.n),
            bytes = ("2*(R*%s+R*%s+E*%s*%s)"):format(s.k, s.n, s.k, s.n),
            prose = {
                "A block makes BM x BN of the product of one expert. While the matrix units work on one step of BK,",
                "the next lies in LDS and the two after it are on their way from global memory to registers. Rows",
                "of A are gathered by row_slot while loading. Buffer resources end with the expert's last row: past",
                "it loads give zeros and stores are dropped.",
                "Blocks are dealt so that neighbouring tiles run on one XCD and share its L2.",
            },
        }
    end,
}
