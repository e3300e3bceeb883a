-- combine: the K expert outputs of a token, weighted and summed in f32; memory-bound.
return {
    ops = { "combine" },
    targets = lib.gpu_targets, generic = true, columns = true,
    tunables = {
        { name = "threads", values = { 128, 256, 512 }, doc = "threads of a block" },
    },
    constraints = {},
    default = function() return { threads = 256 } end,
    derive = function(r)
        local b = lib.type_bytes[r.spec.dtype]
        return {
            launch = { grid = ("(T*(%s/8)+%d)/%d"):format(lib.columns_text(r.spec), r.config.threads - 1, r.config.threads),
                       block = r.config.threads, pdl = 1 },
            derived = { { "FLIGHT", math.min(r.spec.K, 16 // b), "rows loaded before the first is added" } },
            flops = "2*T*K*" .. lib.columns_text(r.spec),
            bytes = ("%d*T*K*%s+%d*T*%s"):format(b, lib.columns_text(r.spec), b, lib.columns_text(r.spec)),
            prose = {
                "One thread makes 8 neighbouring columns of one token: it reads the K rows with 16-byte",
                "accesses, FLIGHT at once, sums in rising k, and writes once. Rows stay packed in registers",
                "until they are added, which leaves room for enough warps to hide the memory's latency.",
            },
        }
    end,
}
