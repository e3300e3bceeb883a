-- xent: softmax cross-entropy of a row of logits and its gradient in place, one block a row.
local threads = 256
return {
    ops = { "xent" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local bytes = lib.type_bytes[lib.arg(r.op, "logits").type]
        return {
            launch = { grid = "T", block = threads, pdl = 1 },
            derived = { { "THREADS", threads, "of a block" } },
            flops = "20*T*V", bytes = ("%d*T*V"):format(2 * bytes),
            prose = { "Each thread keeps a running maximum m and the sum of exp(logit - m) of its columns; the block",
                      "merges them; a second pass replaces the row by scale*(softmax - onehot)." },
        }
    end,
}
