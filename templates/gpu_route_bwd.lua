-- route_bwd: gradient of the router's weights, load-balance loss and z-loss to the logits, a warp a token.
local threads = 256
return {
    ops = { "route_bwd" },
    targets = lib.gpu_targets,
    tunables = {}, constraints = {},
    derive = function(r)
        local tokens = threads // r.target.warp
        return {
            launch = { grid = ("(T+%d)/%d"):format(tokens - 1, tokens), block = threads, pdl = 1 },
            derived = { { "THREADS", threads, "of a block" },
                        { "PER_LANE", lib.ceil_div(r.spec.E, r.target.warp), "experts of a lane" } },
            flops = "T*E*12", bytes = "8*T*E+12*T*K",
            prose = {
                "Lane k < K holds the token's k-th expert; the row of E logits is spread over the lanes. The gradient",
                "to p of every expert is formed first (from the weights that came from p, and from the load-balance",
                "loss), pulled back through softmax or sigmoid, and the z-loss term is added.",
            },
        }
    end,
}
