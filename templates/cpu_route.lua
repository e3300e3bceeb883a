-- route: top-k of every token, then a stable counting sort of the slots by expert.
return lib.cpu_op("route", function(r)
    local s = r.spec
    local capped = s.capacity > 0
    return {
        flops = "20*T*E", bytes = "4*T*E+16*T*K",
        launch = {
            scratch = "128*(8+8*E)+4*E" .. (capped and "+4*T*K" or ""),
            phases = capped and 4 or 3,
        },
        prose = {
            "The tokens fall into at most 128 chunks whatever the number of workers.",
            "Phase 0: a chunk's tokens get experts and weights; its slots of each expert are counted and its",
            "probabilities summed, into scratch. Phase 1: worker 0 turns the counts into the row where each",
            "chunk's first slot of each expert goes, and sums the chunks. Phase 2: chunks place their slots.",
            capped and "Phase 3: workers own experts; one that is over capacity keeps its heaviest slots."
                or "Nothing is ordered by time, so the rows are the same for any number of workers.",
        },
    }
end)
