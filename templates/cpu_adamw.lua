-- adamw: one pass over gradient, master weight and both moments; the model's copy is rounded from it.
return lib.cpu_op("adamw", function(r)
    return {
        flops = "16*N", bytes = ("%d*N"):format(28 + lib.type_bytes[r.spec.dtype]),
        prose = {
            "Each worker updates one contiguous run of parameters, in f32. The corrections 1 - beta^step are",
            "made in f64 by repeated squaring.",
        },
    }
end)
