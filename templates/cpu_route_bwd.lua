-- route_bwd: gradient of the K weights, the load-balance loss and the z-loss to a token's logits.
return lib.cpu_op("route_bwd", function(r)
    return {
        flops = "25*T*E", bytes = "8*T*E+12*T*K",
        prose = {
            "A worker owns a run of tokens. The losses' dense part is made first (zero when both",
            "coefficients are 0), the K chosen experts add theirs.",
        },
    }
end)
