-- add, adamw: one pass over N elements, 16-byte accesses.
local threads = 256
return {
    ops = { "add", "adamw" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local b = lib.type_bytes[r.spec.dtype]
        local adam = r.op.name == "adamw"
        local each, group = adam and 2 or 4, adam and 4 or 8
        local share = threads * each * group
        return {
            template = adam and "gpu_adamw" or "gpu_elementwise",
            launch = { grid = ("(N+%d)/%d"):format(share - 1, share), block = threads, pdl = 1 },
            derived = { { "THREADS", threads, "of a block" }, { "EACH", each, "groups of a thread" },
                        { "GROUP", group, "neighbouring elements of a group" } },
            flops = adam and "15*N" or "N",
            bytes = ("%d*N"):format(adam and 28 + b or 3 * b),
            prose = { "Elements are independent. Each thread takes EACH groups of GROUP neighbours, a block's width of",
                      "groups apart: all its loads are on their way before the first result is made." },
        }
    end,
}
