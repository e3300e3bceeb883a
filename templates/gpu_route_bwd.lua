-- route_bwd: gradient of the router's weights, load-balance loss and z-loss to the logits, a warp a token.
local threads = 256
return {
    ops = { "route_bwd" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local tokens = threads // r.target.warp
        return {
            launch = { grid = ("(T+%d)/%d"):format(tokens - 1, tokens), block = threads, pdl = 1 },
            derived = { { "THREADS", threads, "of a block" },
                        { "PER_LANE", lib.ceil_div(r.spec.E, r.target.warp), "experts of a lane" } },
            flops = "T*E*12", bytes = "8*T*E+12*T*K",
            prose = {
                "The row of E logits is spread over the lanes; lane k < K holds the k-th chosen expert and what its",
                "logit gets through its weight. Differences are taken among the chosen only: a sum over all experts",
                "would leave rounding noise where the true gradient is tiny.",
            },
        }
    end,
}
