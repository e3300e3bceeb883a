-- Ragged-reduction GEMMs on the CPU: dw1, dw2 and the trainer's linear_dw.

-- a: left operand, its columns are rows of the result; b: right operand, its columns are those of the result.
-- a_gather, b_gather: its row is that of the token which a row serves.
local ops = {
    dw1       = { a = "dhpre", b = "x",   b_gather = true, rows = "U", cols = "H", out = "dw1" },
    dw2       = { a = "dout",  b = "a_w", a_gather = true, rows = "H", cols = "F", out = "dw2" },
    linear_dw = { a = "dy",    b = "x",                    rows = "F", cols = "H", out = "dw" },
}

local STREAM_BYTES = 16 << 20 -- results larger than this find no room in a cache anyway

local function arg_type(op, name)
    for _, a in ipairs(op.args) do if a.name == name then return a.type end end
end

-- Everything the template asks about the op: see cpu_reduce.tmpl.
local function facts(r)
    local spec, g, o = r.spec, {}, ops[r.op.name]
    for _, k in ipairs({ "a", "b", "a_gather", "b_gather", "out" }) do g[k] = o[k] end
    local size = { H = spec.H, F = spec.F, U = spec.U }
    g.rows_name, g.cols_name, g.rows, g.cols = o.rows, o.cols, size[o.rows], size[o.cols]
    g.routed = arg_type(r.op, "offsets") ~= nil
    g.gather = o.a_gather or o.b_gather
    g.experts = g.routed and spec.E or 1
    g.a_type, g.b_type, g.out_type = arg_type(r.op, g.a), arg_type(r.op, g.b), arg_type(r.op, g.out)
    g.pair = r.target.bf16_dot and g.a_type == "bf16" and g.b_type == "bf16"
    g.edge = g.cols % r.lib.lanes(r.target) ~= 0
    g.b_edge = g.cols % (r.config.nr * r.lib.lanes(r.target)) ~= 0
    g.stream = r.config.stream == 1
    g.tiles = r.lib.cpu_tiles(r.config.mr)
    return g
end

-- Bytes of struct workspace, as the compiler lays it out.
local function workspace(r)
    local c, lanes = r.config, r.lib.lanes(r.target)
    local panel = c.nr * lanes
    local units = c.rows // c.mr * (c.depth + 1) * c.mr + c.cols // panel * (c.depth + 1) * panel
    return r.lib.round_up(4 * (c.keep * units + c.rows * (c.cols + lanes)), 64)
end

local function derive(r)
    local g, bytes = facts(r), workspace(r)
    local e = r.lib.type_bytes[r.spec.dtype]
    local routed = g.routed and "R" or "T"
    return {
        env = { g = g },
        launch = { scratch = ("threads*%d+64"):format(bytes) },
        flops = ("2*%s*%d*%d"):format(routed, g.rows, g.cols),
        bytes = ("%d*%d*%d*%d+%s*%d"):format(g.experts, g.rows, g.cols, r.lib.type_bytes[g.out_type], routed,
            (g.rows + g.cols) * e),
        tile = ("%dx%d"):format(r.config.mr, r.config.nr * r.lib.lanes(r.target)),
        derived = {
            { "workspace", bytes, "bytes of scratch of a thread" },
            { "unit", g.pair and 2 or 1, "rows summed by one 32-bit unit" },
        },
        prose = {
            ("%s: for each expert e, %s_e = beta * %s_e + sum over its rows r of %s^T %s, in f32."):format(
                r.op.name, g.out, g.out, g.a .. (g.a_gather and "[token(r)]" or "[r]"),
                g.b .. (g.b_gather and "[token(r)]" or "[r]")),
            "A thread takes a piece of the results (the line at the end of this file) and goes through it in blocks:",
            "pack rows of both operands (this is where tokens are gathered) into its workspace, each once if there is",
            "room, multiply them in register tiles, and add the sums of a block to the result. An expert without rows",
            "gets beta * result.",
        },
    }
end

return {
    ops = { "dw1", "dw2", "linear_dw" },
    targets = lib.cpu_targets,
    generic = true, -- cpu-amx has templates of its own for bf16
    tunables = {
        { name = "mr", values = { 12, 8, 6, 4 }, doc = "rows of a register tile" },
        { name = "nr", values = { 2, 4 }, doc = "vectors of a register tile" },
        { name = "rows", values = { 96, 192, 288, 480 }, doc = "rows of the result summed at a time" },
        { name = "cols", values = { 128, 256, 512 }, doc = "columns of the result summed at a time" },
        { name = "depth", values = { 128, 256, 512 }, doc = "units of the sum packed at a time" },
        { name = "keep", values = { 8, 4, 1 }, doc = "blocks of the right operand that stay packed" },
        { name = "start", values = { 16, 48 }, doc = "rows that writing a tile costs" },
        { name = "stream", values = { 0, 1 }, doc = "1: results that overwrite (beta = 0) bypass the caches" },
    },
    constraints = {
        { why = "only vectors of f32 results are streamed",
          ok = function(r)
              return r.config.stream == 0 or r.target.vector_bits > 0 and facts(r).out_type == "f32"
          end },
        { why = "the sums, a row of the right operand and an element do not fit the registers",
          ok = function(r) return r.config.mr * r.config.nr + r.config.nr + 1 <= r.target.registers end },
        { why = "rows must be whole register tiles", ok = function(r) return r.config.rows % r.config.mr == 0 end },
        { why = "the block of columns must be whole panels",
          ok = function(r) return r.config.cols % (r.config.nr * r.lib.lanes(r.target)) == 0 end },
    },
    default = function(r)
        local mr = lib.cpu_tile_rows(r.target)
        local g = facts({ op = r.op, spec = r.spec, target = r.target, lib = r.lib, config = { mr = mr, nr = 2 } })
        local big = g.experts * g.rows * g.cols * 4 > STREAM_BYTES and g.out_type == "f32"
        return { mr = mr, nr = 2, rows = 288, cols = 512, depth = 256, keep = 8, start = 16,
                 stream = big and r.target.vector_bits > 0 and 1 or 0 }
    end,
    derive = derive,
}
