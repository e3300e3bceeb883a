-- route: top-k of every token and the stable counting sort of its slots, in two launches (three when a
-- capacity factor drops rows). All counts are integers and all sums have a fixed order: same bits always.
local blocks = 128

-- Warps of a block: as many as leave one row of E counters each within 32 KiB of shared memory.
local function warps(r)
    local n = 1024 // r.target.warp
    while n > 1 and n * r.spec.E * 4 > 32768 do n = n // 2 end
    return n
end

return {
    ops = { "route" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local drops = r.spec.capacity > 0
        local threads = warps(r) * r.target.warp
        return {
            launch = {
                block = threads, phases = drops and 3 or 2,
                grid = ("%d;%d%s"):format(blocks, blocks, drops and ";E" or ""),
                scratch = ("8*%d*(E+1)+8*(E+1)%s"):format(blocks, drops and "+4*T*K" or ""),
            },
            derived = {
                { "BLOCKS", blocks, "each takes an equal share of the tokens" },
                { "WARPS", warps(r), "of a block" },
                { "PER_LANE", lib.ceil_div(r.spec.E, r.target.warp), "experts that one lane looks at" },
            },
            flops = "T*E*8", bytes = "4*T*E+20*T*K",
            prose = {
                "Phase 0: one warp chooses the K experts of a token; lane l holds experts l, l+WARP, ... K times the",
                "largest key wins (the lower expert on a tie). The block counts its slots of each expert.",
                "Phase 1: each block adds up the counts of the blocks before it, splits its slots over its warps,",
                "and gives every slot its row: rows of an expert are in rising slot order.",
                "Phase 2 (capacity only): one block an expert finds the smallest weight that stays by building its",
                "bits from the top, and packs the rows that stay.",
            },
        }
    end,
}
