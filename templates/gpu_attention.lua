-- attention, attention_bwd: causal, grouped-query, in tiles that never leave the chip. Plain f32
-- arithmetic on any GPU: the trainer's helper, not a tuned flash kernel.
return {
    ops = { "attention", "attention_bwd" },
    targets = lib.gpu_targets, generic = true,
    tunables = {},
    constraints = {
        { why = "heads of more than 128 columns do not fit into a tile",
          ok = function(r) return r.spec.dim <= 128 end },
    },
    derive = function(r)
        local bwd = r.op.name == "attention_bwd"
        local tile = r.spec.dim <= 64 and 32 or 16 -- four tiles of f32 must fit into 48 KiB
        local threads = tile * 8
        local tiles = ("((T+%d)/%d)"):format(tile - 1, tile)
        return {
            template = bwd and "gpu_attention_bwd" or "gpu_attention",
            launch = { block = threads, phases = bwd and 3 or 1, pdl = bwd and 0 or 1,
                       grid = bwd and ("(T*heads+7)/8;%s*kv;%s*heads"):format(tiles, tiles) or tiles .. "*heads",
                       scratch = bwd and "4*T*heads" or "0" },
            derived = { { "THREADS", threads, "of a block" }, { "TILE", tile, "queries, and keys, of a step" } },
            flops = ("%d*T*T*heads*dim"):format(bwd and 5 or 2),
            bytes = ("%d*T*heads*dim"):format(8 * lib.type_bytes[r.spec.dtype]),
            prose = bwd and {
                "Phase 0: delta = <dout, out> of every query and head. Phase 1: one block owns TILE keys of one",
                "key/value head and goes through all queries that see them: dk and dv stay in registers. Phase 2:",
                "one block owns TILE queries of one head and goes through their keys: dq stays in registers.",
                "p is made again from lse in both, so that no sum crosses a block and no atomics are needed.",
            } or {
                "One block owns TILE queries of one head and goes through the keys they see, TILE at a time: scores,",
                "running maximum and sum (softmax in one pass), and the weighted sum of values in registers.",
            },
        }
    end,
}
