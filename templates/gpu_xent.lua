-- xent: softmax cross-entropy of a row of logits and its gradient in place, one block a row.
return {
    ops = { "xent" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local bytes = lib.type_bytes[lib.arg(r.op, "logits").type]
        local threads = r.spec.V >= 16384 and 1024 or 256
        return {
            launch = { grid = "T", block = threads, pdl = 1 },
            derived = { { "THREADS", threads, "of a block" },
                        { "FLIGHT", 16 // (2 * bytes), "groups of 8 logits that a thread loads at once" } },
            flops = "20*T*V", bytes = ("%d*T*V"):format(2 * bytes),
            prose = { "Each thread keeps a running maximum m and the sum of exp(logit - m) of its columns; the block",
                      "merges them; a second pass, out of the second-level cache, replaces the row by",
                      "scale*(softmax - onehot). Accesses are 16 bytes wide from the row's first aligned logit on." },
        }
    end,
}
