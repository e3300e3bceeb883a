-- rmsnorm: residual add and normalisation of one row at a time.
return lib.cpu_op("rmsnorm", function(r)
    return {
        flops = "5*T*H", bytes = ("%d*T*H"):format(4 * lib.type_bytes[r.spec.dtype]),
        prose = {
            "A worker owns a run of tokens. The first pass over a row adds the residual and sums squares,",
            "the second scales from cache. y is made from s after its rounding, as the backward op sees it.",
        },
    }
end)
