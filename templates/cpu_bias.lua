-- Bias gradients on the CPU: db1, db2.
local ops = {
    db1 = { a = "dhpre", cols = "U", out = "db1" },
    db2 = { a = "dout",  cols = "H", out = "db2", gather = true },
}

local function arg_type(op, name)
    for _, a in ipairs(op.args) do if a.name == name then return a.type end end
end

local function facts(r)
    local o, size = ops[r.op.name], { H = r.spec.H, U = r.spec.U }
    local g = { a = o.a, out = o.out, gather = o.gather, cols_name = o.cols, cols = size[o.cols] }
    g.a_type, g.out_type = arg_type(r.op, g.a), arg_type(r.op, g.out)
    g.edge = g.cols % r.lib.lanes(r.target) ~= 0
    g.edge_types = g.a_type == g.out_type and { g.a_type } or { g.a_type, g.out_type }
    return g
end

return {
    ops = { "db1", "db2" },
    targets = lib.cpu_targets,
    tunables = { { name = "vectors", values = { 4, 2, 8 }, doc = "vectors of columns that a thread sums at a time" } },
    constraints = {},
    derive = function(r)
        local g = facts(r)
        return {
            env = { g = g },
            flops = ("R*%d"):format(g.cols),
            bytes = ("R*%d"):format(g.cols * r.lib.type_bytes[g.a_type]),
            tile = "c" .. r.config.vectors,
            prose = { "A thread takes chunks of columns of an expert and adds up its rows, rising, in registers." },
        }
    end,
}
