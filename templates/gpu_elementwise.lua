-- add, adamw: one pass over N elements, 4 neighbours a thread.
local threads, each = 256, 4
return {
    ops = { "add", "adamw" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local b = lib.type_bytes[r.spec.dtype]
        local adam = r.op.name == "adamw"
        return {
            launch = { grid = ("(N+%d)/%d"):format(threads * each - 1, threads * each), block = threads, pdl = 1 },
            derived = { { "THREADS", threads, "of a block" }, { "EACH", each, "elements of a thread" } },
            flops = adam and "15*N" or "N",
            bytes = ("%d*N"):format(adam and 28 + b or 3 * b),
            prose = { "Elements are independent: each thread takes EACH of them, a block's width apart, so that a",
                      "warp's accesses are contiguous." },
        }
    end,
}
