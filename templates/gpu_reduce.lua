-- GEMM that sums over ragged rows (weight gradients), in plain f32 arithmetic: the companion of gpu_rows.
local tile, threads, depth = 64, 256, 16
local shapes = { -- op -> rows of the result (columns of A), its columns (columns of B)
    dw2 = { m = "H", n = "F", a = "dout", b = "a_w", gather = "a" },
    dw1 = { m = "U", n = "H", a = "dhpre", b = "x", gather = "b" },
    linear_dw = { m = "F", n = "H", a = "dy", b = "x" },
}
return {
    ops = { "dw2", "dw1", "linear_dw" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local s = shapes[r.op.name]
        local b = lib.type_bytes[r.spec.dtype]
        local groups = r.op.name == "linear_dw" and "" or "E*"
        return {
            launch = { grid = ("%s((%s+%d)/%d)*((%s+%d)/%d)"):format(groups, s.m, tile - 1, tile, s.n, tile - 1, tile),
                       block = threads },
            env = { shape = s },
            derived = {
                { "THREADS", threads, "of a block, 16 x 16" },
                { "TILE", tile, "rows and columns of a tile" },
                { "DEPTH", depth, "rows summed in a step" },
                { "HEIGHT", r.spec[s.m], "rows of the result" },
                { "WIDTH", r.spec[s.n], "columns of the result" },
            },
            tile = ("%dx%d"):format(tile, tile),
            flops = ("2*R*%s*%s"):format(s.m, s.n),
            bytes = ("%d*(R*%s+R*%s)+4*E*%s*%s"):format(b, s.m, s.n, s.m, s.n),
            prose = {
                "A block makes TILE x TILE of one expert's gradient and goes through the expert's rows, DEPTH at a",
                "time; rows past the end are zeros in both operands, so the neighbours' values never enter.",
                "An expert without rows writes zeros (or leaves the gradient when accumulating).",
            },
        }
    end,
}
