-- Ragged-rows GEMMs on the CPU: up, down, dh, dx, and the trainer's linear and linear_dx.

-- What each op multiplies. a: left operand, rows of `depth`; b: weights; form nt: weight rows run along depth,
-- nn: along the result's columns. finish: the epilogue (part/cpu_finish_*.tmpl).
local ops = {
    up        = { a = "x",     b = "w1", form = "nt", depth = "H", cols = "F", out = "a",      finish = "up" },
    down      = { a = "a",     b = "w2", form = "nt", depth = "F", cols = "H", out = "y",      finish = "store" },
    dh        = { a = "dout",  b = "w2", form = "nn", depth = "H", cols = "F", out = "dhpre",  finish = "dh" },
    dx        = { a = "dhpre", b = "w1", form = "nn", depth = "U", cols = "H", out = "dx_row", finish = "store" },
    linear    = { a = "x",     b = "w",  form = "nt", depth = "H", cols = "F", out = "y",      finish = "store" },
    linear_dx = { a = "dy",    b = "w",  form = "nn", depth = "F", cols = "H", out = "dx",     finish = "store" },
}

local function arg_type(op, name)
    for _, a in ipairs(op.args) do if a.name == name then return a.type end end
end

local function edge_types(r, g)
    local types = { r.spec.dtype }
    if g.finish == "store" and g.out_type ~= r.spec.dtype then types[2] = g.out_type end
    return types
end

-- Everything the template asks about the op: see cpu_rows.tmpl.
local function facts(r)
    local spec, g = r.spec, {}
    for _, k in ipairs({ "a", "b", "form", "out", "finish" }) do g[k] = ops[r.op.name][k] end
    g.depth_name, g.cols_name = ops[r.op.name].depth, ops[r.op.name].cols
    local size = { H = spec.H, F = spec.F, U = spec.U }
    g.depth, g.cols = size[g.depth_name], size[g.cols_name]
    if spec.columns > 0 and g.cols_name == "H" and g.depth_name ~= "H" then g.cols, g.all = spec.columns, "ALL" end
    g.all = g.all or "COLS" -- name of the length of a whole row: that of weights, where a block of columns is made
    g.routed = arg_type(r.op, "offsets") ~= nil
    g.gather = arg_type(r.op, "row_slot") ~= nil
    g.experts = g.routed and spec.E or 1
    g.gates = (r.op.name == "up" and spec.gated) and 2 or 1
    g.uses_F = (r.op.name == "up" or r.op.name == "dh") and spec.gated
    g.a_type, g.b_type, g.out_type = arg_type(r.op, g.a), arg_type(r.op, g.b), arg_type(r.op, g.out)
    g.pair = r.target.bf16_dot and g.a_type == "bf16" and g.b_type == "bf16"
    g.edge = g.cols % r.lib.lanes(r.target) ~= 0
    g.b_edge = g.cols % (r.config.nr * r.lib.lanes(r.target)) ~= 0
    g.bias = r.op.name == "down" and spec.bias == 1 and "b2" or nil
    g.beta = arg_type(r.op, "beta") ~= nil
    g.whole_rows = r.op.name == "dh"
    g.needs_exp = (r.op.name == "up" or r.op.name == "dh")
        and r.lib.has({ "swiglu", "geglu", "silu", "gelu" }, spec.act)
    local row_bytes = g.depth * r.lib.type_bytes[g.b_type]
    g.stage = row_bytes % 2048 == 0 and row_bytes // 1024
    g.edge_types = edge_types(r, g)
    g.tiles = r.lib.cpu_tiles(r.config.mr)
    g.ahead = r.config.ahead == 1
    g.keep = r.config.keep == 1
    return g
end

local function depth_block(r, g)
    local units = g.depth // (g.pair and 2 or 1)
    return math.min(r.config.depth, r.lib.round_up(units, 16))
end

-- Blocks of the depth for which packed rows stay.
local function a_blocks(r, g)
    return g.keep and r.lib.ceil_div(g.depth // (g.pair and 2 or 1), depth_block(r, g)) or 1
end

-- Bytes of struct workspace, as the compiler lays it out.
local function workspace(r, g)
    local c, lanes = r.config, r.lib.lanes(r.target)
    local panel, depth = c.nr * lanes, depth_block(r, g)
    local n = 4 * (a_blocks(r, g) * c.rows // c.mr * (depth * c.mr + 16) + c.cols // panel * (depth + 1) * panel + c.rows * (c.cols + lanes))
    if r.op.name == "dh" then n = n + 4 * c.rows end
    return r.lib.round_up(n, 64)
end

local KEPT_BYTES = 8 << 20

local function kept_bytes(r)
    local g = facts(r)
    return 4 * a_blocks(r, g) * r.config.rows * (depth_block(r, g) + 2)
end

local function derive(r)
    local g = facts(r)
    local row = g.form == "nt" and depth_block(r, g) * (g.pair and 2 or 1) or r.config.cols -- elements of a weight row
    g.strip_lines = r.lib.ceil_div(row * r.lib.type_bytes[g.b_type], 64)
    local bytes = workspace(r, g)
    local e = r.lib.type_bytes[r.spec.dtype]
    local width = g.gates * g.cols
    return {
        env = { g = g },
        launch = { scratch = ("threads*%d+64"):format(bytes) },
        flops = ("2*%s*%d*%d"):format(g.routed and "R" or "T", g.depth, width),
        bytes = ("%d*%d*%d*%d+%s*%d"):format(g.experts, g.depth, width, e, g.routed and "R" or "T",
            (g.depth + width) * e),
        tile = ("%dx%d"):format(r.config.mr, r.config.nr * r.lib.lanes(r.target)),
        derived = {
            { "depth_block", depth_block(r, g), "units of DEPTH packed at a time" },
            { "a_blocks", a_blocks(r, g), "such blocks of the rows that stay packed" },
            { "workspace", bytes, "bytes of scratch of a thread" },
            { "unit", g.pair and 2 or 1, "elements of the dot products in 32 bits" },
        },
        prose = {
            ("%s: for each expert e and each of its rows r, %s[r] = finish( %s * %s ), sums in f32."):format(
                r.op.name, g.out, g.a .. (g.gather and "[token(r)]" or "[r]"),
                g.form == "nt" and g.b .. "_e^T" or g.b .. "_e"),
            "A thread takes a piece of the work (the line at the end of this file) and goes through it in blocks:",
            "pack rows of the left operand (this is where tokens are gathered) and weights into its workspace,",
            "multiply them in register tiles, and finish the sums of a block while they are in cache.",
        },
    }
end

return {
    ops = { "up", "down", "dh", "dx", "linear", "linear_dx" },
    targets = lib.cpu_targets,
    generic = true, columns = true, -- cpu-amx has templates of its own for bf16
    tunables = {
        { name = "mr", values = { 12, 8, 6, 4 }, doc = "rows of a register tile" },
        { name = "nr", values = { 2, 4 }, doc = "vectors of a register tile" },
        { name = "rows", values = { 96, 192, 288, 480 }, doc = "rows packed at a time" },
        { name = "cols", values = { 64, 128, 256, 512 }, doc = "columns of weights packed at a time" },
        { name = "depth", values = { 128, 256, 512 }, doc = "units of the summed dimension packed at a time" },
        { name = "ahead", values = { 1, 0 }, doc = "1: the next weights come into the cache during the main loop" },
        { name = "keep", values = { 1, 0 }, doc = "1: rows stay packed over their whole length while columns pass" },
        { name = "start", values = { 16, 48 }, doc = "rows that fetching a block of weights costs" },
    },
    constraints = {
        { why = "the sums, a row of weights and an element do not fit the registers",
          ok = function(r) return r.config.mr * r.config.nr + r.config.nr + 1 <= r.target.registers end },
        { why = "rows that stay packed would pass 8 MiB",
          ok = function(r) return r.config.keep == 0 or kept_bytes(r) <= KEPT_BYTES end },
        { why = "rows must be whole register tiles", ok = function(r) return r.config.rows % r.config.mr == 0 end },
        { why = "the block of columns must be whole panels",
          ok = function(r) return r.config.cols % (r.config.nr * r.lib.lanes(r.target)) == 0 end },
    },
    default = function(r)
        local mr = lib.cpu_tile_rows(r.target)
        local config = { mr = mr, nr = 2, rows = 288, cols = 256, depth = 256, start = 16, keep = 1 }
        local q = { op = r.op, spec = r.spec, target = r.target, lib = r.lib, config = config }
        return { mr = mr, nr = 2, rows = 288, cols = 256, depth = 256, start = 16,
                 keep = kept_bytes(q) <= KEPT_BYTES and 1 or 0,
                 ahead = r.target.vector_bits > 0 and 1 or 0 }
    end,
    derive = derive,
}
