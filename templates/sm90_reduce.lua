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

-- A map over ragged rows. Coordinates (column, 2^30 - length + row, 2^30, end of group): the address is
-- base + column*2 + (row + end - length)*s modulo 2^64, because 2^30 * 2^34 = 2^64; a row at or past
-- `length` has its second coordinate at or past 2^30, the size of that dimension, and reads as zeros.
local function ragged_map(arg, columns)
    return { arg = arg, dim = { tostring(columns), "1073741824", "2147483647", "2147483647" },
             stride = { "0", columns .. "*2", "17179869184-" .. columns .. "*2", columns .. "*2" },
             box = { 64, 64, 1, 1 }, swizzle = 128 }
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
    },
    constraints = {
        { why = "stages do not fit into shared memory", ok = function(r) return shared_bytes(r) <= 232448 end },
    },
    -- 256 columns read shared memory least per flop; the second half of a narrow tile costs nothing else.
    default = function() return { bn = 256, cluster = 2, stages = 4 } end,
    derive = function(r)
        local dw1 = is(r, "dw1")
        local w, h, transposed = dw1 and "U" or "F", "H", not is(r, "dw2")
        local inner, outer = transposed and h or w, transposed and w or h
        local result = dense(r) and "dw" or r.op.name
        local rows = dense(r) and "T" or "R"
        local tmaps = { ragged_map(dw1 and "dhpre" or dense(r) and "dy" or "a_w", w) }
        local maps = { "map_b" }
        if not f32(r) then
            maps[2] = "map_d"
            tmaps[2] = { arg = result, dim = { inner, outer, dense(r) and "1" or "E" },
                         stride = { "0", inner .. "*2", inner .. "*" .. outer .. "*2" }, box = { 64, 64, 1 },
                         swizzle = 128 }
        end
        return {
            launch = {
                grid = ("sms/%d*%d"):format(r.config.cluster, r.config.cluster), block = 384, pdl = 1,
                cluster = r.config.cluster, shared_bytes = 232448, tmaps = tmaps,
            },
            env = { maps = maps, gather = is(r, "dw2") and "dout" or "x", transposed = transposed, f32 = f32(r),
                    dense = dense(r), result = result, sorted = sorted(r) },
            derived = {
                { "height", r.spec.H, "columns of the gathered operand" },
                { "width", width(r), "columns of the other operand" },
                { "shared", shared_bytes(r), "bytes of shared memory in use" },
            },
            tile = ("128x%d_s%d_c%d"):format(r.config.bn, r.config.stages, r.config.cluster),
            flops = ("2*%s*%d*%d"):format(rows, r.spec.H, width(r)),
            bytes = ("2*%s*%d+%d*%s*%d*%d"):format(rows, r.spec.H + width(r), f32(r) and 4 or 2,
                dense(r) and "1" or "E", r.spec.H, width(r)),
            prose = {
                "Persistent: one CTA an SM, two CTAs a cluster, each with 128 columns of the gathered operand and the",
                "same columns of the other one, which each CTA half loads by TMA for both. Producers gather 64 token",
                "rows a step with cp.async, zeros behind the group's end; the ragged tensor map does the same for the",
                "other operand. Both lie row by row in shared memory, which wgmma reads as transposed operands. Two",
                "consumer warpgroups keep 64 rows of the result each. An expert without rows takes one step of zeros.",
            },
        }
    end,
}
