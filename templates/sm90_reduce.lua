-- sm90_reduce: weight gradients on Hopper, sums over the ragged rows of each expert.

local function is(r, name) return r.op.name == name end
local function dense(r) return is(r, "linear_dw") end
local function width(r) return is(r, "dw1") and r.spec.U or r.spec.F end
local function f32(r) return r.spec.wgrad == "f32" end
local function sorted(r) return not dense(r) and r.spec.E > 1 and r.spec.E <= 256 end -- longest sums first
local function shared_bytes(r)
    return r.config.stages * (128 + r.config.bn) * 128 + (f32(r) and 0 or 2 * 2 * 8192) + 16 * r.config.stages + 9 * 16
        + (sorted(r) and 2 * r.spec.E or 0)
end

-- What splitting costs, in steps: the second phase, and each piece; the kernel gets these figures. Pieces are numbered
-- beside 32 experts at most.
local SPLIT = { cost = 16, piece = 4, parts = 16, slots = 2, experts = 32 }

-- Steps of a last round of `rest` items, cut where that is cheaper: what plan_split of part/sm90_split_plan reckons.
local function last_round(rest, clusters, steps)
    local best = steps
    for parts = 2, SPLIT.parts do
        if rest * parts > SPLIT.slots * clusters then break end
        local rounds = lib.ceil_div(rest * parts, clusters)
        best = math.min(best, rounds * (steps // parts + SPLIT.piece) + SPLIT.cost)
    end
    return best
end

-- Is the last round of tiles so empty, on a GPU of 132 SMs and with experts of the rows expected, that cutting its tiles
-- by rows saves a tenth of the time? The kernel decides again, with the rows it finds.
local function split_pays(r)
    local experts, rows = r.spec.E, r.tokens > 0 and r.tokens * r.spec.K // r.spec.E or 4096
    if dense(r) then experts, rows = 1, r.tokens > 0 and r.tokens or 4096 end
    if experts > SPLIT.experts then return false end
    local div, clusters, steps = r.lib.ceil_div, 66, rows // 64
    local items = experts * div(r.spec.H, 256) * div(width(r), 256)
    local rest = items % clusters
    return rest > 0 and steps - last_round(rest, clusters, steps) > (items // clusters + 1) * steps // 10
end

-- Bytes of the pieces' sums: none when experts are so short that no part is worth its cost.
local function pieces_bytes(r)
    local least = 64 * (SPLIT.cost + SPLIT.piece + 1) -- rows of an expert, on average
    local least_of_all = dense(r) and ("T/%d"):format(least) or ("R/(E*%d)"):format(least)
    local most = r.lib.ceil_div(r.spec.H, 128 * r.config.cluster) * r.lib.ceil_div(width(r), r.config.bn) * SPLIT.parts
    local items = dense(r) and tostring(most) or ("E*%d"):format(most)
    return ("min(1,%s)*min(%d*(sms/%d),%s)*%d"):format(least_of_all, SPLIT.slots, r.config.cluster, items,
        r.config.cluster * 128 * r.config.bn * 4)
end

-- A map over ragged rows. Coordinates (column, 2^30 - length + row, 2^30, end of group): the address is
-- base + column*2 + (row + end - length)*s modulo 2^64, because 2^30 * 2^34 = 2^64; a row at or past
-- `length` has its second coordinate at or past 2^30, the size of that dimension, and reads as zeros. The boxes beside
-- each other belong to one step: where a load brought 256 bytes into L2, it read some of them from memory twice.
local function ragged_map(arg, columns)
    return { arg = arg, dim = { tostring(columns), "1073741824", "2147483647", "2147483647" },
             stride = { "0", columns .. "*2", "17179869184-" .. columns .. "*2", columns .. "*2" },
             box = { 64, 64, 1, 1 }, swizzle = 128, l2 = 128 }
end

-- How the kernel of this config works, line by line of its header.
local function prose_of(r)
    local lines = {}
    local function add(applies, line)
        if applies then lines[#lines + 1] = line end
    end
    local pair, boxes, split = r.config.cluster == 2, r.config.boxes == 1, r.config.split == 1
    add(pair, "Persistent: one CTA an SM. Two CTAs of a cluster have 128 columns of A each and the same columns of B, of")
    add(pair, "which each brings half for both by TMA.")
    add(not pair, "Persistent: one CTA an SM, with 128 columns of A and its own columns of B, by TMA.")
    add(dense(r), "Rows of A come by TMA as well, 64 a step, zeros behind the last one.")
    add(not dense(r), "A warpgroup of producers gathers 64 token rows of A a step with cp.async (TMA when they lie packed)" ..
        (boxes and ";" or "."))
    add(boxes, "a quarter of them comes by TMA, too, in boxes of one row.")
    add(not dense(r), "Zeros follow a group's end: the tensor map of B is ragged. An expert without rows takes one step of zeros.")
    add(true, "A and B lie row by row in shared memory, which wgmma reads as transposed operands. Two consumer warpgroups")
    add(true, "keep 64 rows of the result each.")
    add(r.config.late == 1, "A tile stays behind, packed in registers, and leaves in parts while the next one multiplies.")
    add(split, "Where the last round of tiles would leave clusters idle its tiles are cut by rows: the pieces' sums go")
    add(split, "to scratch as f32, and a second phase adds them in the order of their rows.")
    return lines
end

return {
    ops = { "dw1", "dw2", "linear_dw" },
    targets = { "sm_90a" },
    dtypes = { "bf16" },
    applies = function(r) return not (dense(r) and r.spec.out == "f32") end,
    tunables = {
        { name = "bn", values = { 256, 128 }, doc = "columns of a multiplication tile" },
        { name = "cluster", values = { 2, 1 }, doc = "CTAs that share the loads of B" },
        { name = "stages", values = { 4, 3, 5, 6 }, doc = "steps of 64 rows in flight" },
        { name = "late", values = { 1, 0 }, doc = "1: a tile leaves, packed in registers, while the next one multiplies" },
        { name = "boxes", values = { 0, 1 }, doc = "1: the copy engine fetches a quarter of the gathered rows" },
        { name = "split", values = { 0, 1 }, doc = "1: tiles of the last round are cut by rows, where that pays" },
    },
    constraints = {
        { why = "only whole tiles of bf16 results leave late", ok = function(r)
            return r.config.late == 0 or r.config.split == 0 and not f32(r) end },
        { why = "pieces are numbered beside 32 experts at most", ok = function(r)
            return r.config.split == 0 or dense(r) or r.spec.E <= SPLIT.experts end },
        { why = "no rows are gathered", ok = function(r) return r.config.boxes == 0 or not dense(r) end },
        { why = "stages do not fit into shared memory", ok = function(r) return shared_bytes(r) <= 232448 end },
    },
    -- 256 columns read shared memory least per flop; the second half of a narrow tile costs nothing else. Boxes of one
    -- row save instructions, and time where those limit the kernel: not with few columns, where memory does. So they
    -- come from 448 products for each value of a row on (measured: 384 gain nothing, 455 do).
    default = function(r)
        local split = split_pays(r)
        local H, W = r.spec.H, width(r)
        local boxes = not dense(r) and H * W >= 448 * (H + W)
        return { bn = 256, cluster = 2, stages = 4, late = (f32(r) or split) and 0 or 1, boxes = boxes and 1 or 0,
                 split = split and 1 or 0 }
    end,
    derive = function(r)
        local dw1 = is(r, "dw1")
        local w, h, transposed = dw1 and "U" or "F", "H", not is(r, "dw2")
        local inner, outer = transposed and h or w, transposed and w or h
        local result = dense(r) and "dw" or r.op.name
        local rows = dense(r) and "T" or "R"
        local split = r.config.split == 1
        local gather = is(r, "dw2") and "dout" or "x"
        local tmaps = { ragged_map(gather, h), ragged_map(dw1 and "dhpre" or dense(r) and "dy" or "a_w", w) }
        local maps = { "map_a", "map_b" }
        if not f32(r) then
            maps[3] = "map_d"
            tmaps[3] = { arg = result, dim = { inner, outer, dense(r) and "1" or "E" },
                         stride = { "0", inner .. "*2", inner .. "*" .. outer .. "*2" }, box = { 64, 64, 1 },
                         swizzle = 128, l2 = 0 }
        end
        if r.config.boxes == 1 then
            maps[#maps + 1] = "map_rows"
            tmaps[#tmaps + 1] = { arg = gather, dim = { h, "T" }, stride = { "0", h .. "*2" }, box = { 64, 1 },
                                  swizzle = 128, l2 = 128 }
        end
        return {
            launch = {
                grid = ("sms/%d*%d"):format(r.config.cluster, r.config.cluster), block = 384, pdl = 1,
                cluster = r.config.cluster, shared_bytes = 232448, tmaps = tmaps,
                phases = split and 2 or 1,
                scratch = split and pieces_bytes(r) or "0",
            },
            env = { maps = maps, gather = gather, transposed = transposed, f32 = f32(r),
                    dense = dense(r), result = result, sorted = sorted(r), split_costs = SPLIT },
            derived = {
                { "height", r.spec.H, "columns of the gathered operand" },
                { "width", width(r), "columns of the other operand" },
                { "shared", shared_bytes(r), "bytes of shared memory in use" },
            },
            tile = ("128x%d_s%d_c%d"):format(r.config.bn, r.config.stages, r.config.cluster),
            flops = ("2*%s*%d*%d"):format(rows, r.spec.H, width(r)),
            bytes = ("2*%s*%d+%d*%s*%d*%d"):format(rows, r.spec.H + width(r), f32(r) and 4 or 2,
                dense(r) and "1" or "E", r.spec.H, width(r)),
            prose = prose_of(r),
        }
    end,
}
