-- rmsnorm_bwd: rows are independent but for dgain, which is summed over fixed chunks of tokens.
return lib.cpu_op("rmsnorm_bwd", function(r)
    return {
        flops = "10*T*H", bytes = ("%d*T*H"):format(4 * lib.type_bytes[r.spec.dtype]),
        launch = { scratch = "128*H*4", phases = 2 },
        prose = {
            "Phase 0: the tokens fall into at most 128 chunks whatever the number of workers; a chunk's rows",
            "get their dx, and its part of dgain goes to scratch. Phase 1: workers own columns of dgain and",
            "sum the chunks in order.",
        },
    }
end)
