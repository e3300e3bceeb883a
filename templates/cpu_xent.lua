-- xent: softmax cross-entropy of a row of logits and its gradient in place, one worker per row.
return {
    ops = { "xent" },
    targets = lib.cpu_targets,
    tunables = {}, constraints = {},
    derive = function(r)
        local bytes = lib.type_bytes[r.spec.out == "f32" and "f32" or r.spec.dtype]
        return {
            flops = "20*T*V", bytes = ("%d*T*V"):format(2 * bytes),
            prose = {
                "A row is read three times from cache: for its largest logit m, for the sum of exp(logit - m),",
                "and to be replaced by its gradient scale*(softmax - onehot).",
            },
        }
    end,
}
