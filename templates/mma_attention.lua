-- attention, attention_bwd in bf16 on tensor cores (mma.sync, sm_80 and newer): tiles of keys pass by a
-- tile of queries, scores and sums stay in registers.
local function sizes(r)
    local row = lib.round_up(r.spec.dim, 16)
    local bwd = r.op.name == "attention_bwd"
    local keys = r.config.keys
    local queries = bwd and r.config.queries or r.config.warps * 16
    return row, queries, keys, bwd
end

-- Bytes of shared memory: see struct room of each template.
local function shared(r)
    local row, queries, keys, bwd = sizes(r)
    local line = 2 * (row + 8)
    if not bwd then return line * (queries + 4 * keys) end
    local own = r.config.warps * 16
    local by_keys = line * (2 * own + 4 * queries) + 4 * 4 * queries -- keys, values stay; q, dout, lse, delta pass
    local by_queries = line * (2 * own + 4 * keys)
    return math.max(by_keys, by_queries)
end

return {
    ops = { "attention", "attention_bwd" },
    targets = { "sm_90a", "sm_80" }, generic = 1,
    dtypes = { "bf16" },
    applies = function(r) return r.spec.dim % 8 == 0 and r.spec.dim <= 128 end,
    tunables = {
        { name = "warps", values = { 4, 8 }, doc = "warps of a block, 16 rows each" },
        { name = "keys", values = { 32, 64, 128 }, doc = "keys of a step" },
        { name = "queries", values = { 32, 64 }, doc = "queries of a step in backward" },
    },
    constraints = {
        { why = "shared memory of a block is too small",
          ok = function(r) return shared(r) <= r.target.shared_bytes end },
        { why = "forward has no tunable queries: keep 32",
          ok = function(r) return r.op.name == "attention_bwd" or r.config.queries == 32 end },
        { why = "more accumulators than registers", ok = function(r)
            local row, queries, keys, bwd = sizes(r)
            if bwd then return row + math.max(queries, keys) <= 192 end
            return row / 2 + keys / 2 <= 128
        end },
    },
    default = function(r)
        local bwd = r.op.name == "attention_bwd"
        local config = { warps = 4, keys = 64, queries = bwd and r.spec.dim <= 64 and 64 or 32 }
        r.config = config
        if shared(r) > r.target.shared_bytes then config.keys = 32 end
        return config
    end,
    derive = function(r)
        local row, queries, keys, bwd = sizes(r)
        local own, threads = r.config.warps * 16, r.config.warps * 32
        local tiles = ("((T+%d)/%d)"):format(own - 1, own)
        return {
            template = bwd and "mma_attention_bwd" or "mma_attention",
            launch = { block = threads, phases = bwd and 3 or 1, pdl = bwd and 0 or 1, shared_bytes = shared(r),
                       grid = bwd and ("(T*heads+%d)/%d;%s*kv;%s*heads"):format(r.config.warps - 1, r.config.warps,
                           tiles, tiles) or tiles .. "*heads",
                       scratch = bwd and "4*T*heads" or "0" },
            tile = ("%dx%d"):format(own, bwd and queries or keys),
            derived = { { "THREADS", threads, "of a block" }, { "OWN", own, "rows that a block owns, 16 a warp" },
                        { "ROW", row, "columns of a tile row: dim, whole 16s" } },
            flops = ("%d*T*T*heads*dim"):format(bwd and 5 or 2), bytes = "4*T*(heads+kv)*dim",
            prose = bwd and {
                "Phase 0: delta = <dout, out> of every query and head. Phase 1: a block owns OWN keys of a key/value",
                "head; tiles of queries and their dout pass by, scores are made transposed, and dk, dv stay in",
                "registers. Phase 2: a block owns OWN queries; tiles of keys and values pass by, dq stays in",
                "registers. p is made again from lse in both: no sum crosses a block, no atomics, same bits always.",
            } or {
                "A block owns OWN queries of one head, 16 a warp. Key and value tiles come by cp.async, one step",
                "ahead. Scores, running softmax (base 2) and the sum of values stay in registers; tiles after the",
                "queries are not visited, and only tiles on a border are masked.",
            },
        }
    end,
}
