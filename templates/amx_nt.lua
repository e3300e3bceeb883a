-- amx_nt: rows of activations times rows of weights, y = x W^T, on AMX tiles.
--
-- Roles are swapped: weights are the left operand as they lie in memory (rows, copied tile by tile),
-- tokens the right one, packed once for all panels of weights. So no weight is ever transposed.

local function depth(r) return r.op.name == "down" and r.spec.F or r.spec.H end
local function outputs(r)
    return ({ up = r.spec.U, down = lib.columns(r.spec), linear = r.spec.F })[r.op.name]
end
local function gated(r) return r.op.name == "up" and r.spec.gated end

return {
    ops = { "up", "down", "linear" },
    targets = { "cpu-amx" },
    dtypes = { "bf16" },
    columns = true,
    tunables = {
        { name = "mb", values = { 256, 128, 64, 32 }, doc = "rows packed at once" },
        { name = "nb", values = { 64, 32, 128 }, doc = "rows of weights multiplied at once" },
        { name = "kb", values = { 512, 256, 1024, 2048, 4096 }, doc = "elements of a sum before it rests" },
        { name = "pf", values = { 1, 0 }, doc = "1: fetch weights one tile before they are packed" },
        { name = "stream", values = { 1, 0 }, doc = "1: results that are read much later bypass the caches" },
        { name = "near", values = { 1, 0 }, doc = "1: fetch packed rows to L1 a step ahead" },
    },
    constraints = {
        { why = "a gated panel needs 64 rows: 32 gates and their ups",
          ok = function(r) return not gated(r) or r.config.nb >= 64 end },
        { why = "kb beyond the length of a sum repeats a smaller one",
          ok = function(r) return r.config.kb == 256 or r.config.kb // 2 < depth(r) end },
        { why = "packed rows would pass 4 MiB",
          ok = function(r) return r.config.mb == 32 or r.config.mb * depth(r) * 2 <= 4 << 20 end },
    },
    default = function(r)
        local mb = 256
        while mb > 32 and mb * depth(r) * 2 > 2 << 20 do mb = mb // 2 end
        local up = r.op.name == "up"
        local kb = up and 512 or 2048
        while kb > 256 and kb // 2 >= depth(r) do kb = kb // 2 end
        return { mb = mb, nb = up and 64 or 32, kb = kb, pf = 1, stream = 1, near = 1 }
    end,
    derive = function(r)
        local c, k = r.config, depth(r)
        local experts = r.op.name == "linear" and 1 or r.spec.E
        local steps = r.lib.ceil_div(k, 32)
        local block = math.min(c.kb // 32, steps)
        local shared = c.mb
        while shared > 64 and shared * k * 2 > 800 << 10 do shared = shared // 2 end
        local p_bytes = c.mb // 16 * steps * 1024
        local s_bytes = c.nb // 16 * block * 1024
        local c_bytes = c.nb * c.mb * 4
        local panels = gated(r) and r.lib.ceil_div(r.spec.F, c.nb // 2) or r.lib.ceil_div(outputs(r), c.nb)
        -- an odd number of lines between workers, so that their buffers do not share cache sets
        local worker = r.lib.round_up(p_bytes + 2 * s_bytes + 2 * c_bytes, 4096) + 64 * 5
        local rows = r.op.name == "linear" and "T" or "R"
        local up = r.op.name == "up"
        return {
            launch = { scratch = ("threads*%d"):format(worker) },
            flops = ("2*%s*%d*%d"):format(rows, k, outputs(r)),
            bytes = ("2*%d*%d*%d+2*%s*%d"):format(experts, k, outputs(r), rows,
                k + outputs(r) + (up and r.spec.F or 0)),
            tile = ("%dx%d"):format(c.mb, c.nb),
            derived = {
                { "experts", experts, "groups of rows" },
                { "shared", shared, "rows packed at once where workers may share an L2 cache" },
                { "depth", k, "elements of a sum" },
                { "outputs", outputs(r), "rows of weights of a group" },
                { "steps", steps, "products of 32 along a sum" },
                { "block", block, "of them before the sum rests in memory" },
                { "panels", panels, "panels of weights of a group" },
                { "p_bytes", p_bytes, "packed rows of a worker" },
                { "s_bytes", s_bytes, "packed weights of a worker, twice" },
                { "c_bytes", c_bytes, "sums of a panel, twice" },
                { "worker_bytes", worker, "scratch of a worker" },
            },
            prose = {
                "A worker takes a stretch of (chunk of rows, panel of weights) pairs. It packs a chunk once,",
                "as right operands (pairs along the sum, one row of x a column), gathering tokens by the",
                "routing; weight rows are left operands as they lie in memory, copied block by block. 32 x 32",
                "blocks are multiplied with 2 x 2 tiles. After each step of products a piece of other work",
                "runs while the tile unit is busy: packing the next block of weights, and finishing the panel",
                "before (bias, activation, rounding, transposing back: rows of weights lie in the rows of the",
                "sums, tokens in the columns). Every sum runs along k in one order, whoever computes it.",
            },
        }
    end,
}
