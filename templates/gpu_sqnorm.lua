-- sqnorm: sum of squares in f64, in an order that depends on N only.
local threads, per_block = 256, 16384
return {
    ops = { "sqnorm" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function()
        return {
            launch = { grid = ("max(1,(N+%d)/%d);1"):format(per_block - 1, per_block), block = threads, phases = 2, pdl = 1,
                       scratch = ("8*max(1,(N+%d)/%d)"):format(per_block - 1, per_block) },
            derived = { { "THREADS", threads, "of a block" }, { "PER_BLOCK", per_block, "elements of a block" } },
            flops = "2*N", bytes = "4*N",
            prose = { "Phase 0: each block sums its PER_BLOCK elements into scratch. Phase 1: one block sums those.",
                      "No atomics: the order of every addition is fixed." },
        }
    end,
}
