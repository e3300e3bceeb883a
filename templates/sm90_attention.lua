-- sm90_attention: causal attention, forward and backward, on Hopper, with wgmma, TMA and mbarriers; heads of 64 or 128 columns.
local queries, keys, stages = 128, 128, 2       -- forward
local own, step, bwd_stages = 128, 64, 4        -- backward

local function head_map(arg, heads, box_rows)
    local columns = heads .. "*dim"
    return { arg = arg, dim = { columns, "T" }, stride = { "0", columns .. "*2" }, box = { 64, box_rows }, swizzle = 128,
             l2 = 256 }
end

-- Tiles of 64 columns: queries, then stages of keys and of values; nine barriers.
local function forward_bytes(r) return r.spec.dim * 2 * (queries + stages * 2 * keys) + 8 * (1 + 4 * stages) end

local function forward(r)
    return {
        launch = {
            block = 384, grid = ("((T+%d)/%d)*heads"):format(queries - 1, queries), pdl = 1,
            shared_bytes = forward_bytes(r) + 1024, -- the tiles begin on 1024 bytes
            tmaps = { head_map("q", "heads", queries), head_map("k", "kv", keys), head_map("v", "kv", 64) },
        },
        env = { maps = { "map_q", "map_k", "map_v" } },
        tile = ("%dx%d"):format(queries, keys),
        derived = {
            { "QUERIES", queries, "of a block, 64 for each consumer warpgroup" },
            { "KEYS", keys, "of a step" },
            { "STAGES", stages, "steps whose keys and values are in flight" },
            { "SHARED", forward_bytes(r), "bytes of shared memory in use" },
        },
        flops = "2*T*T*heads*dim", bytes = "4*T*(heads+kv)*dim",
        prose = {
            "A block owns QUERIES queries of one head. One warp of the first warpgroup fills a ring of key and value",
            "tiles by TMA. Two consumer warpgroups own 64 queries each and issue their products in turn: the scores",
            "of the next keys and the sum over the last values run on the tensor cores while the other warpgroup",
            "makes exponentials. Probabilities pass from scores to the second product in registers. Keys after the",
            "queries are not visited, and only tiles on a border are masked. An inf or NaN among the values of such",
            "a tile would reach rows that must not see it, as 0 times NaN: then the block's rows are made again, slowly.",
        },
    }
end

-- Owned and passing tiles, lse and delta of the passing queries, barriers.
local function backward_bytes(r)
    return r.spec.dim * 2 * (2 * own + bwd_stages * 2 * step) + bwd_stages * 8 * step + 8 * (1 + 2 * bwd_stages)
end

local function backward(r)
    local tiles = ("((T+%d)/%d)"):format(own - 1, own)
    return {
        template = "sm90_attention_bwd",
        launch = {
            block = 384, phases = 3, pdl = 1, shared_bytes = backward_bytes(r) + 1024,
            grid = ("sms;%s*kv;%s*heads"):format(tiles, tiles),
            scratch = ("8*heads*%s*%d"):format(tiles, own),
            tmaps = { head_map("q", "heads", 64), head_map("k", "kv", 64), head_map("v", "kv", 64),
                      head_map("dout", "heads", 64) },
        },
        env = { maps = { "map_q", "map_k", "map_v", "map_dout" } },
        tile = ("%dx%d"):format(own, step),
        derived = {
            { "OWN", own, "keys, then queries, of a block: 64 for each consumer warpgroup" },
            { "STEP", step, "rows that pass in a step" },
            { "STAGES", bwd_stages, "steps in flight" },
            { "SHARED", backward_bytes(r), "bytes of shared memory in use" },
        },
        flops = "5*T*T*heads*dim", bytes = "4*T*(heads+kv)*dim",
        prose = {
            "Phase 0: delta = <dout, out> of every query and head. Phase 1: a block owns OWN keys of a key/value head;",
            "steps of queries and their dout pass by, scores are made transposed, and dk, dv stay in registers.",
            "Phase 2: a block owns OWN queries, keys and values pass by, dq stays in registers. p is made again from",
            "lse in both: no sum crosses a block, no atomics, same bits always. One warp of the first warpgroup",
            "fills the ring of stages by TMA, two consumer warpgroups own 64 rows each. Where a step on a border",
            "holds inf or NaN, which 0 times anything would pass on, the block's rows are made again, slowly.",
        },
    }
end

return {
    ops = { "attention", "attention_bwd" },
    targets = { "sm_90a" },
    dtypes = { "bf16" },
    applies = function(r) return r.spec.dim == 64 or r.spec.dim == 128 end,
    tunables = {},
    constraints = {},
    derive = function(r) return r.op.name == "attention" and forward(r) or backward(r) end,
}
