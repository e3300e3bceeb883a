-- GEMM over ragged rows in plain f32 arithmetic: right on every GPU and for every type. The matrix-unit
-- templates replace it where they apply; it stays for f32 and as the thing to compare with.
local tile, threads, depth = 64, 256, 16
local shapes = { -- op -> inner size, columns, A's name and element's place, B read along k (nt) or along n (nn)
    up = { k = "H", n = "F" }, down = { k = "F", n = "H" }, dh = { k = "H", n = "F" }, dx = { k = "U", n = "H" },
    linear = { k = "H", n = "F" }, linear_dx = { k = "F", n = "H" },
}
return {
    ops = { "up", "down", "dh", "dx", "linear", "linear_dx" },
    targets = lib.gpu_targets, generic = true, columns = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local s = shapes[r.op.name]
        local block = r.spec.columns > 0 and (r.op.name == "down" or r.op.name == "dx")
        local n = block and r.spec.columns or r.spec[s.n]
        if block then s = { k = s.k, n = tostring(n) } end
        local paired = r.op.name == "up" and r.spec.gated
        local width = paired and tile // 2 or tile
        local dense = r.op.name:find("^linear") ~= nil
        local columns = ("((%s+%d)/%d)"):format(s.n, width - 1, width)
        local rows = dense and ("((T+%d)/%d)"):format(tile - 1, tile) or ("((R+%d)/%d+E)"):format(tile - 1, tile)
        local grid = r.op.name == "dh" and rows .. "+1" or rows .. "*" .. columns
        local gathers = r.op.name == "up" or r.op.name == "dh"
        local b = lib.type_bytes[r.spec.dtype]
        return {
            launch = { grid = grid, block = threads, pdl = 0 },
            derived = {
                { "THREADS", threads, "of a block, 16 x 16" },
                { "TILE_ROWS", tile, "rows of a tile" },
                { "TILE_COLUMNS", tile, "rows of B in a tile" .. (paired and ": half gate, half up" or "") },
                { "DEPTH", depth, "of a step along the inner size" },
                { "INNER", r.spec[s.k], "length of the sums" },
                { "COLUMNS", n, "of the result" },
            },
            tile = ("%dx%d"):format(tile, tile),
            flops = ("2*R*%s*%s"):format(s.k, r.op.name == "up" and "U" or s.n),
            bytes = ("%d*(R*%s+R*%s+E*%s*%s)"):format(b, s.k, s.n, s.k, s.n),
            prose = {
                "A block makes TILE_ROWS x TILE_COLUMNS of the product of one expert: steps of DEPTH go through",
                "shared memory, each thread keeps 4 x 4 sums." ..
                    (gathers and " Rows of A are gathered by row_slot while loading." or ""),
                "Tiles past the last row end at once: the grid is an upper bound that needs no count from the host.",
            },
        }
    end,
}
