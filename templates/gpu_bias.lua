-- db1, db2: column sums of an expert's rows, for the bias gradients.
local threads = 256
return {
    ops = { "db1", "db2" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local b = lib.type_bytes[r.spec.dtype]
        local width = r.op.name == "db1" and "U" or "H"
        return {
            launch = { grid = ("E*((%s+63)/64)"):format(width), block = threads, pdl = 1 },
            derived = { { "THREADS", threads, "of a block" },
                        { "WIDTH", r.op.name == "db1" and r.spec.U or r.spec.H, "columns" } },
            flops = ("2*R*%s"):format(width), bytes = ("%d*R*%s"):format(b, width),
            prose = { "A block owns 64 columns of one expert: 8 threads across with 8 columns each, the other threads",
                      "take every (THREADS/8)-th row; their sums are added in a fixed order." },
        }
    end,
}
