-- embed, embed_bwd: rows of a table, looked up and summed back.
local threads = 256
return {
    ops = { "embed", "embed_bwd" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local b = lib.type_bytes[r.spec.dtype]
        local bwd = r.op.name == "embed_bwd"
        return {
            template = r.op.name == "embed" and "gpu_embed" or "gpu_embed_bwd",
            launch = { block = threads, pdl = 1,
                       grid = bwd and ("V*((H/8+%d)/%d)"):format(threads - 1, threads)
                           or ("(T*(H/8)+%d)/%d"):format(threads - 1, threads) },
            derived = { { "THREADS", threads, "of a block" } },
            flops = bwd and "T*H" or "0", bytes = ("%d*T*H"):format(2 * b),
            prose = bwd and { "One block owns 8*THREADS columns of one row of the table: it goes through all tokens in",
                              "rising order, skips chunks without its row by one vote, and sums in registers." }
                or { "One thread copies 8 neighbouring columns of one token." },
        }
    end,
}
