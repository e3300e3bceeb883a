-- route: top-k of every token and the stable counting sort of its slots, in two launches (three when a
-- capacity factor drops rows). All counts are integers and all sums have a fixed order: same bits always.
local blocks = 128

-- Bytes of a tile: the keys of WARP tokens, rows an odd number of words apart.
local function tile_bytes(r) return 4 * r.target.warp * (r.spec.E | 1) end

-- Warps that choose by tiles, one token a lane: as many as fit beside the counters; 0 means that a warp
-- per token is better (very few or many experts, groups, or the small LDS of AMD).
local function tile_warps(r)
    local n = math.min(16, (r.target.shared_bytes - 40960) // tile_bytes(r))
    local fits = r.spec.E >= 32 and r.spec.E <= 256 and r.spec.groups == 0 and n >= 2
    return r.target.dialect == "cuda" and fits and n or 0
end

-- Warps of a block: as many as leave one row of E counters each within 32 KiB of shared memory; half as
-- many where a lane keeps more than 8 choices in registers.
local function warps(r)
    local n = (r.spec.K > 8 and tile_warps(r) > 0 and 512 or 1024) // r.target.warp
    while n > 1 and n * r.spec.E * 4 > 32768 do n = n // 2 end
    return n
end

return {
    ops = { "route" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local drops = r.spec.capacity > 0
        local threads, tiles = warps(r) * r.target.warp, tile_warps(r)
        return {
            launch = {
                block = threads, phases = drops and 3 or 2, shared_bytes = tiles * tile_bytes(r),
                grid = ("%d;%d%s"):format(blocks, blocks, drops and ";E" or ""),
                scratch = ("8*%d*(E+1)+8*(E+1)%s"):format(blocks, drops and "+4*T*K" or ""),
            },
            derived = {
                { "BLOCKS", blocks, "each takes an equal share of the tokens" },
                { "WARPS", warps(r), "of a block" },
                { "TILE_WARPS", tiles, "of them choose, a tile of tokens each; 0: all, a token each" },
                { "PER_LANE", lib.ceil_div(r.spec.E, r.target.warp), "experts that one lane looks at" },
            },
            flops = "T*E*8", bytes = "4*T*E+20*T*K",
            prose = {
                tiles > 0 and "Phase 0: a warp copies the logits of WARP tokens to shared memory, then each lane chooses for one token:"
                    or "Phase 0: one warp chooses the K experts of a token; lane l holds experts l, l+WARP, ... K times the",
                tiles > 0 and "K times the largest key of the best chunk wins (the lower expert on a tie). The block counts its slots."
                    or "largest key wins (the lower expert on a tie). The block counts its slots of each expert.",
                "Phase 1: each block adds up the counts of the blocks before it, splits its slots over its warps,",
                "and gives every slot its row: rows of an expert are in rising slot order.",
                "Phase 2 (capacity only): one block an expert finds the smallest weight that stays by building its",
                "bits from the top, and packs the rows that stay.",
            },
        }
    end,
}
