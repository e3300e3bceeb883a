-- rope: rotary position embedding in place.
local threads = 256
return {
    ops = { "rope" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local b = lib.type_bytes[r.spec.dtype]
        return {
            launch = { grid = ("(T*(dim/2)+%d)/%d"):format(threads - 1, threads), block = threads, pdl = 1 },
            derived = { { "THREADS", threads, "of a block" } },
            flops = "6*T*heads*dim", bytes = ("%d*T*heads*dim"):format(2 * b),
            prose = { "One thread turns pair i of every head of one token: sine and cosine are made once for all heads." },
        }
    end,
}
