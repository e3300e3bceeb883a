-- xent: softmax cross-entropy of a row of logits and its gradient in place, one worker per row.
return lib.cpu_op("xent", function(r)
    return {
        flops = "20*T*V", bytes = ("%d*T*V"):format(2 * lib.type_bytes[lib.arg(r.op, "logits").type]),
        prose = {
            "A row is read three times from cache: for its largest logit m, for the sum of exp(logit - m),",
            "and to be replaced by its gradient scale*(softmax - onehot).",
        },
    }
end)
