-- rope: rotary embedding in place; angles by an exact start every 64 tokens and a rotation from one
-- token to the next in f64.
return lib.cpu_op("rope", function(r)
    return {
        flops = "6*T*heads*dim", bytes = ("%d*T*heads*dim"):format(2 * lib.type_bytes[r.spec.dtype]),
        prose = {
            "Tokens fall into runs of 64. At the start of a run sine and cosine of pos * theta^(-2i/dim) are",
            "computed in f64; from a token to the next they are rotated by one angle step, whose error after",
            "64 steps is far below f32. All heads of a token share the table.",
        },
    }
end)
