-- route: top-k of every token and the stable counting sort of its slots, in two launches (three when a
-- capacity factor drops rows). All counts are integers and all sums have a fixed order: same bits always.
local blocks, tile_tokens = 128, 32

-- Experts of a chunk and of a row of a tile: whole chunks.
local function chunk(r) return r.spec.E > 64 and 16 or 8 end
local function width(r) return lib.round_up(r.spec.E, chunk(r)) end

-- Bytes of a tile: the logits of WARP tokens; rows are an odd number of 16-byte groups apart.
local function tile_bytes(r) return 16 * r.target.warp * (width(r) // 4 | 1) end

-- Warps that choose by tiles, one token a lane: as many as fit beside the counters; 0 means that a warp
-- per token is better (very few or many experts, groups, or the small LDS of AMD).
local function tile_warps(r)
    local n = math.min(16, (r.target.shared_bytes - 40960) // tile_bytes(r))
    local fits = r.spec.E >= 32 and r.spec.E <= 256 and r.spec.groups == 0 and n >= 2
    return r.target.dialect == "cuda" and fits and n or 0
end

-- Warps of a block: as many as leave one row of E counters each within 32 KiB of shared memory; half as
-- many where a lane works on a token of its own, which takes registers, or where groups are chosen among more than five
-- experts a lane: with 64 registers that spills.
local function warps(r)
    local many = r.target.dialect == "cuda" and r.spec.groups > 0 and r.spec.E > 160
    local n = ((tile_warps(r) > 0 or many) and 512 or 1024) // r.target.warp
    while n > 1 and n * r.spec.E * 4 > 32768 do n = n // 2 end
    return n
end

-- Parts into which the blocks' counters of an expert are split, so that all threads of a block add them up.
local function parts(r)
    local n, threads = 1, warps(r) * r.target.warp
    while 2 * n * r.spec.E <= threads and n < blocks do n = 2 * n end
    return n
end

-- Slots of a thread in a window.
local function ahead(r) return lib.ceil_div(r.config.window * tile_tokens * r.spec.K, warps(r) * r.target.warp) end

return {
    ops = { "route" },
    targets = lib.gpu_targets, generic = true,
    tunables = {
        { name = "window", values = { 1, 2, 4, 8 }, doc = "masks of 32 tokens whose slots get their rows at once" },
    },
    constraints = {
        { why = "the masks need more than 32 KiB of shared memory",
          ok = function(r) return r.config.window * r.spec.E <= 8192 end },
        { why = "a thread would hold more than 8 slots",
          ok = function(r) return ahead(r) <= 8 end },
    },
    default = function(r) -- at most 16 KiB
        local window = 8
        while window > 1 and window * r.spec.E > 4096 do window = window // 2 end
        return { window = window }
    end,
    derive = function(r)
        local drops = r.spec.capacity > 0
        local threads, tiles = warps(r) * r.target.warp, tile_warps(r)
        local window = r.config.window
        local derived = {
            { "BLOCKS", blocks, "each takes an equal share of the tokens" },
            { "WARPS", warps(r), "of a block" },
            { "TILE_WARPS", tiles, "of them choose, a tile of tokens each; 0: all, a token each" },
            { "PER_LANE", lib.ceil_div(r.spec.E, r.target.warp), "experts that one lane looks at" },
            { "PARTS", parts(r), "threads that add up the counters of one expert" },
            { "WINDOW", window, "tiles of 32 tokens whose slots get their rows at once" },
            { "AHEAD", ahead(r), "slots of a thread in a window" },
        }
        if tiles > 0 then derived[#derived + 1] = { "CHUNK", chunk(r), "experts whose largest logit is kept in a register" } end
        return {
            launch = {
                block = threads, phases = drops and 3 or 2, shared_bytes = tiles * tile_bytes(r), pdl = 1,
                grid = ("%d;%d%s"):format(blocks, blocks, drops and ";E" or ""),
                scratch = ("8*%d*(E+1)+8*(E+1)%s"):format(blocks, drops and "+4*T*K" or ""),
            },
            derived = derived,
            flops = "T*E*8", bytes = "4*T*E+20*T*K",
            prose = {
                tiles > 0 and "Phase 0: a warp copies the logits of WARP tokens to shared memory, then each lane chooses for one token:"
                    or "Phase 0: one warp chooses the K experts of a token; lane l holds experts l, l+WARP, ... K times the",
                tiles > 0 and "K times the largest logit of the best chunk wins (the lower expert on a tie). The block counts its slots."
                    or "largest key wins (the lower expert on a tie). The block counts its slots of each expert.",
                "Phase 1: each block adds up the counts of the blocks before it and gives every slot of its own a row.",
                "A token chooses an expert at most once, so 32 tokens are 32 bits of a mask for each expert: a slot's",
                "rank is the number of bits below its own, and rows of an expert are in rising slot order.",
                drops and "Phase 2: one block an expert finds the smallest weight that stays by building its bits from the top,"
                    or nil,
                drops and "and packs the rows that stay." or nil,
            },
        }
    end,
}
