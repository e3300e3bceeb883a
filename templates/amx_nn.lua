-- amx_nn: rows of gradients times weights as they are, dx = dy W, on AMX tiles.
--
-- Rows are the left operand (copied tile by tile), weights the right one: pairs of weight rows
-- interleaved, one shuffle for each vector, so packing a panel costs little more than reading it.

local function depth(r) return ({ dh = r.spec.H, dx = r.spec.U, linear_dx = r.spec.F })[r.op.name] end
local function outputs(r)
    return ({ dh = r.spec.F, dx = lib.columns(r.spec), linear_dx = r.spec.H })[r.op.name]
end
local function planes(r) return r.op.name == "linear_dx" and r.spec.out == "f32" and 3 or 1 end

return {
    ops = { "dh", "dx", "linear_dx" },
    targets = { "cpu-amx" },
    dtypes = { "bf16" },
    columns = true,
    tunables = {
        { name = "mb", values = { 256, 128, 64, 32 }, doc = "rows packed at once" },
        { name = "nb", values = { 64, 32, 128 }, doc = "columns of weights multiplied at once" },
        { name = "kb", values = { 512, 256, 1024, 2048, 4096 }, doc = "elements of a sum before it rests" },
        { name = "far", values = { 32, 16, 64 }, doc = "rows of weights fetched ahead while packing" },
        { name = "stream", values = { 1, 0 }, doc = "1: results bypass the caches" },
        { name = "near", values = { 1, 0 }, doc = "1: fetch packed rows to L1 a step ahead" },
    },
    constraints = {
        { why = "kb beyond the length of a sum repeats a smaller one",
          ok = function(r) return r.config.kb == 256 or r.config.kb // 2 < depth(r) end },
        { why = "packed rows would pass 4 MiB",
          ok = function(r) return r.config.mb == 32 or r.config.mb * depth(r) * 2 * planes(r) <= 4 << 20 end },
    },
    default = function(r)
        local mb = 256
        while mb > 32 and mb * depth(r) * 2 * planes(r) > 2 << 20 do mb = mb // 2 end
        local kb = 512
        while kb > 256 and kb // 2 >= depth(r) do kb = kb // 2 end
        -- few rows: reading weights is all, and wider panels read longer runs of each row
        local few = r.tokens > 0 and r.tokens * r.spec.K <= 64 * r.spec.E
        return { mb = mb, nb = few and 128 or 64, kb = kb, far = 16, stream = 1, near = 1 }
    end,
    derive = function(r)
        local c, k = r.config, depth(r)
        local experts = r.op.name == "linear_dx" and 1 or r.spec.E
        local steps = r.lib.ceil_div(k, 32)
        local block = math.min(c.kb // 32, steps)
        local shared = c.mb
        while shared > 64 and shared * k * 2 * planes(r) > 800 << 10 do shared = shared // 2 end
        local p_bytes = c.mb // 16 * steps * 1024 * planes(r)
        local s_bytes = c.nb // 16 * block * 1024
        local c_bytes = c.nb * c.mb * 4
        local panels = r.lib.ceil_div(outputs(r), c.nb)
        -- an odd number of lines between workers, so that their buffers do not share cache sets
        local worker = r.lib.round_up(p_bytes + 2 * s_bytes + 2 * c_bytes, 4096) + 64 * 5
        local rows = r.op.name == "linear_dx" and "T" or "R"
        local dh = r.op.name == "dh"
        return {
            launch = {
                scratch = ("threads*%d"):format(worker) .. (dh and ("+R*%d"):format(4 * panels) or ""),
                phases = dh and 2 or 1,
            },
            flops = ("2*%s*%d*%d"):format(rows, k, outputs(r)),
            bytes = ("2*%d*%d*%d+2*%s*%d"):format(experts, k, outputs(r), rows,
                k + outputs(r) + (dh and 2 * r.spec.U or 0)),
            tile = ("%dx%d"):format(c.mb, c.nb),
            derived = {
                { "experts", experts, "groups of rows" },
                { "shared", shared, "rows packed at once where workers may share an L2 cache" },
                { "depth", k, "elements of a sum" },
                { "outputs", outputs(r), "columns of weights" },
                { "planes", planes(r), "bf16 terms of an element of the rows" },
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
                "as left operands (plain rows, gathered by the routing where there is one); pairs of weight",
                "rows interleaved are right operands. 32 x 32 blocks are multiplied with 2 x 2 tiles. After",
                "each step of products a piece of other work runs while the tile unit is busy: packing the",
                "next block of weights, and finishing the panel before, row by row. Every sum runs along k",
                "in one order, whoever computes it.",
            },
        }
    end,
}
