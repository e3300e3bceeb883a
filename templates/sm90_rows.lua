-- sm90_rows: GEMM over ragged rows on Hopper, with wgmma, TMA, mbarriers and clusters.

local function is(r, name) return r.op.name == name end
local function gathered(r) return is(r, "up") or is(r, "dh") end
local function dense(r) return is(r, "linear") or is(r, "linear_dx") end
local function depth(r)
    return ({ up = r.spec.H, down = r.spec.F, dh = r.spec.H, dx = r.spec.U, linear = r.spec.H,
              linear_dx = r.spec.F })[r.op.name]
end
local function width(r)
    if is(r, "up") or is(r, "dh") or is(r, "linear") then return r.spec.F end
    return is(r, "linear_dx") and r.spec.H or lib.columns(r.spec) -- down, dx: perhaps a block of H
end
local function mn_major(r) return is(r, "dh") or is(r, "dx") or is(r, "linear_dx") end
local function f32_result(r) return is(r, "linear") and r.spec.out == "f32" end
local function split(r) return is(r, "up") and r.spec.gated end
local function tile_columns(r) return split(r) and r.config.bn // 2 or r.config.bn end
-- What is stored as it was summed: packed in registers, it can wait there for the next tile's multiplications.
local function plain(r) return not gathered(r) and not f32_result(r) end
local function column_tiles(r) return r.lib.ceil_div(width(r), tile_columns(r)) end

local function shared_bytes(r)
    local c = r.config
    local rows = c.ahead > 0 and c.stages + c.ahead or 0 -- stages of a ring of their own
    return c.stages * (128 + c.bn) * 128 + c.ahead * 128 * 128 + (is(r, "dh") and 0 or 8 * 2 * 2048) +
        16 * c.stages + 8 * rows + 9 * 16
end

-- A tensor map: sizes innermost first, byte strides of the dimensions after the first. What lies beside a box of
-- 64 columns of bf16 is wanted by the next step, as a rule: L2 fetches it, too.
local function map(arg, dim, stride, box)
    table.insert(stride, 1, 0)
    for i, v in ipairs(dim) do dim[i] = tostring(v) end
    for i, v in ipairs(stride) do stride[i] = tostring(v) end
    return { arg = arg, dim = dim, stride = stride, box = box, swizzle = 128, l2 = 256 }
end
local function rows_map(arg, columns, box_rows, count)
    return map(arg, { columns, count or "R" }, { columns .. "*2" }, { 64, box_rows })
end
local function halves_map(r, arg, box_rows)
    local halves = r.spec.gated and 2 or 1
    return map(arg, { "F", halves, "R" }, { "F*2", "U*2" }, { 64, 1, box_rows })
end
local function weights_map(arg, columns, rows, halves, box_rows, count)
    local row = columns .. "*2"
    return map(arg, { columns, rows, halves, count or "E" }, { row, rows .. "*" .. row, rows .. "*" .. halves .. "*" .. row },
        { 64, box_rows, 1, 1 })
end

-- Weights whose rows lie along the sum: boxes beside each other belong to one step, each is fetched for itself.
local function across(m)
    m.l2 = 128
    return m
end
-- The same weights, seen through a block of the columns of H that lie along dimension `at`.
local function block_of(r, m, at)
    m.dim[at] = lib.columns_text(r.spec)
    return m
end

local function maps_of(r)
    local half = r.config.bn // 2
    local rows = r.config.beside == 1 and 64 or 128 -- of a box of A: CTAs beside each other load half each
    local halves = r.spec.gated and 2 or 1
    if is(r, "up") then
        return { "map_b", "map_h", "map_act" },
               { weights_map("w1", "H", "F", halves, half), halves_map(r, "hpre", 16), rows_map("a", "F", 16) }
    elseif is(r, "down") then
        return { "map_a", "map_b", "map_d" },
               { rows_map("a", "F", rows), block_of(r, weights_map("w2", "F", "H", 1, half), 2),
                 rows_map("y", lib.columns_text(r.spec), 16) }
    elseif is(r, "dh") then
        return { "map_b", "map_dpre", "map_act", "map_pre" },
               { across(weights_map("w2", "F", "H", 1, 64)), halves_map(r, "dhpre", 16), rows_map("a_w", "F", 16),
                 halves_map(r, "hpre", 128) }
    elseif is(r, "linear") then
        local names = { "map_a", "map_b", "map_d" }
        local maps = { rows_map("x", "H", rows, "T"), weights_map("w", "H", "F", 1, half, 1), rows_map("y", "F", 16, "T") }
        if f32_result(r) then names[3], maps[3] = nil, nil end
        return names, maps
    elseif is(r, "linear_dx") then
        return { "map_a", "map_b", "map_d" },
               { rows_map("dy", "F", rows, "T"), across(weights_map("w", "H", "F", 1, 64, 1)), rows_map("dx", "H", 16, "T") }
    end
    return { "map_a", "map_b", "map_d" },
           { rows_map("dhpre", "U", rows), block_of(r, across(weights_map("w1", "H", "U", 1, 64)), 1),
             rows_map("dx_row", lib.columns_text(r.spec), 16) }
end

-- How the kernel of this config works, line by line of its header.
local function prose_of(r)
    local beside, pair = r.config.beside == 1, r.config.cluster == 2
    local a = gathered(r) and "gathered by token with cp.async" or "by TMA"
    local b = not pair and "by TMA" or beside and "by TMA, each CTA its own columns of it" or
        "by TMA, each CTA half of it for both"
    local order = not pair and "each expert's row tiles under each other." or
        beside and "pairs of column tiles beside each other, whose CTAs read the same rows in step: " ..
            (gathered(r) and "the second time from L2." or "half each, for both.") or
        "pairs of row tiles under each other, an odd last one split by columns."
    local lines = {
        "Persistent: one CTA an SM" .. (pair and ", two CTAs a cluster" or "") .. ". A warpgroup of producers " ..
            "fills a ring of stages, 64 deep",
        "in the sum: rows of A " .. a .. ", and B " .. b .. ".",
        r.config.pp == 1 and "Two consumer warpgroups take tiles of 128 rows in turn, multiply with wgmma, keep the sums in"
            or "Two consumer warpgroups multiply 64 rows of a tile each with wgmma, keep the sums in",
        "registers and " .. (f32_result(r) and "store it from there. " or "finish the tile through shared memory. ") ..
            (dense(r) and "Tiles are those of one group of T rows:" or "Tiles follow from offsets alone: experts in order,"),
        order,
    }
    if r.config.ahead > 0 then
        lines[#lines + 1] = ("Rows of A have a ring of their own, whose loads are %d step%s ahead of B's."):format(
            r.config.ahead, r.config.ahead > 1 and "s" or "")
    end
    if r.config.late == 1 then
        lines[#lines + 1] = "A tile stays behind, packed in registers, and leaves in parts while the next one multiplies."
    end
    if r.config.apart == 1 then
        lines[#lines + 1] = "Clusters that get a tile less begin later, so that not all SMs finish tiles at the same time."
    end
    lines[#lines + 1] = "Rows behind a group's end are multiplied but never stored" .. (r.config.pp == 1 and "." or
        "; warpgroups whose 64 rows all lie there do")
    if r.config.pp == 0 then lines[#lines + 1] = "not multiply." end
    return lines
end

return {
    ops = { "up", "down", "dh", "dx", "linear", "linear_dx" },
    targets = { "sm_90a" },
    dtypes = { "bf16" },
    columns = true,
    applies = function(r) -- interleaved gates stay with the generic template; so does <dout, b2> in dh
        if is(r, "dh") and r.spec.bias == 1 or is(r, "linear_dx") and r.spec.out == "f32" then return false end
        return r.spec.layout == "concat" or not r.spec.gated or not gathered(r)
    end,
    tunables = {
        { name = "bn", values = { 256, 192, 128 }, doc = "columns of a multiplication tile (gate and up counted)" },
        { name = "pp", values = { 0, 1 }, doc = "1: the two consumer warpgroups take whole tiles in turn" },
        { name = "cluster", values = { 2, 1 }, doc = "CTAs that walk in step and share loads" },
        { name = "stages", values = { 4, 3, 5, 6 }, doc = "steps of 64 in flight" },
        { name = "ahead", values = { 0, 2, 1 }, doc = "steps that dh loads its rows before B, in a ring of their own" },
        { name = "late", values = { 1, 0 }, doc = "1: a tile leaves, packed in registers, while the next one multiplies" },
        { name = "beside", values = { 0, 1 }, doc = "1: a cluster has two column tiles of the same rows, not two row tiles" },
        { name = "apart", values = { 0, 1 }, doc = "1: clusters with a tile less begin later, so that epilogues do not meet" },
        { name = "group", values = { 8, 4, 16, 2, 1 }, doc = "row units that share a column tile before the next column" },
    },
    constraints = {
        { why = "stages do not fit into shared memory", ok = function(r) return shared_bytes(r) <= 232448 end },
        { why = "dh stages its epilogue in slots of 128 + 256 rows", ok = function(r)
            return not is(r, "dh") or (r.config.bn == 256 and r.config.pp == 0) end },
        { why = "rows of dh, and only those, have a ring of their own", ok = function(r)
            return is(r, "dh") == (r.config.ahead > 0) end },
        { why = "accumulators of a whole 256-column tile do not fit into one warpgroup", ok = function(r)
            return r.config.pp == 0 or r.config.bn <= 192 end },
        { why = "192 columns in turn spill registers", ok = function(r)
            return r.config.pp == 0 or r.config.bn == 128 end },
        { why = "only plain bf16 results of one tile at a time leave late", ok = function(r)
            return r.config.late == 0 or plain(r) and r.config.pp == 0 end },
        { why = "tiles that leave late have no epilogue to keep apart", ok = function(r)
            return r.config.apart == 0 or r.config.late == 0 and not dense(r) end },
        { why = "two column tiles beside each other need a cluster, and an even number of them", ok = function(r)
            return r.config.beside == 0 or r.config.cluster == 2 and column_tiles(r) % 2 == 0 end },
        { why = "halves of B must be whole blocks of 64 columns", ok = function(r)
            return r.config.bn % 128 == 0 or not (mn_major(r) or split(r)) end },
    },
    -- The widest tile reads shared memory least per flop; short sums still prefer it, because the two
    -- warpgroups drift apart and one's epilogue meets the other's multiplications.
    -- Clusters drift apart, too: two column tiles of long gathered rows read them from memory twice unless they
    -- are one cluster's. Where rows have a single column tile, experts side by side share them, if in step: no start
    -- apart for these.
    default = function(r)
        local c = { bn = 256, pp = 0, cluster = 2, stages = 4, ahead = is(r, "dh") and 2 or 0,
                    late = plain(r) and 1 or 0, beside = 0, apart = 0, group = 8 }
        local tiles = r.lib.ceil_div(r.spec.F, split(r) and 128 or 256)
        if gathered(r) and tiles > 1 then c.apart = 1 end
        if is(r, "up") and tiles == 2 and r.spec.H >= 2048 then c.beside = 1 end
        return c
    end,
    derive = function(r)
        local names, tmaps = maps_of(r)
        local columns = tile_columns(r)
        local partials = is(r, "dh") and (r.lib.ceil_div(r.spec.F, columns) > 1 or r.spec.capacity > 0)
        local grid = ("sms/%d*%d"):format(r.config.cluster, r.config.cluster)
        local u = is(r, "up") and "U" or tostring(width(r))
        local rows, experts = dense(r) and "T" or "R", dense(r) and "1" or "E"
        local beside = r.config.beside == 1
        return {
            launch = {
                grid = partials and grid .. ";(T*K+383)/384/2*2+2" or grid, block = 384, pdl = 1,
                cluster = r.config.cluster, shared_bytes = 232448, phases = partials and 2 or 1,
                scratch = partials and ("R*4*%d"):format(r.lib.ceil_div(r.spec.F, columns)) or "0", tmaps = tmaps,
            },
            env = {
                maps = names, gather = gathered(r) and (is(r, "up") and "x" or "dout"), b_mn = mn_major(r),
                halves = r.spec.gated and 2 or 1, split_b = split(r), dense = dense(r),
            },
            derived = {
                { "depth", depth(r), "length of the sums" },
                { "width", width(r), "columns of the result" .. (split(r) and ", of gate and of up each" or "") },
                { "tile_columns", columns, "columns of the result in a tile" },
                { "shared", shared_bytes(r), "bytes of shared memory in use" },
            },
            tile = ("128x%d_s%d%s_c%d%s%s"):format(r.config.bn, r.config.stages,
                r.config.ahead > 0 and "a" .. r.config.stages + r.config.ahead or "", r.config.cluster,
                beside and "_beside" or "",
                r.config.pp == 1 and "_pp" or r.config.late == 1 and "_late" or ""),
            flops = ("2*%s*%d*%s"):format(rows, depth(r), u),
            bytes = ("2*(%s*%d+%s*%s+%s*%d*%s)"):format(rows, depth(r), rows, u, experts, depth(r), u),
            prose = prose_of(r),
        }
    end,
}
