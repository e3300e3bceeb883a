-- sqnorm: sum of squares in f64 over fixed chunks, then over the chunks.
return lib.cpu_op("sqnorm", function(r)
    return {
        flops = "2*N", bytes = "4*N",
        launch = { scratch = "256*8", phases = 2 },
        prose = {
            "Phase 0: at most 256 chunks whatever the number of workers, each summed in f64 into scratch.",
            "Phase 1: worker 0 adds the chunks in order.",
        },
    }
end)
