-- rope: rotary position embedding in place.
local threads, most_tokens, table_bytes = 256, 32, 16384

-- Tokens of a block: 8 groups of pairs a thread, as long as their sines fit.
local function tokens(r)
    local half = r.spec.dim // 2
    local groups = math.max(1, r.spec.heads * half // 8)
    return math.max(1, math.min(most_tokens, 8 * threads // groups, table_bytes // (8 * half)))
end

return {
    ops = { "rope" },
    targets = lib.gpu_targets, generic = true,
    tunables = {}, constraints = {},
    derive = function(r)
        local b, n = lib.type_bytes[r.spec.dtype], tokens(r)
        return {
            launch = { grid = ("(T+%d)/%d"):format(n - 1, n), block = threads, pdl = 1 },
            derived = { { "THREADS", threads, "of a block" }, { "TOKENS", n, "of a block" },
                        { "GROUP", r.spec.dim % 16 == 0 and 8 or 1, "neighbouring pairs that a thread turns at once" } },
            flops = "6*T*heads*dim", bytes = ("%d*T*heads*dim"):format(2 * b),
            prose = { "A block makes the rates of all pairs, then the sines and cosines of its TOKENS tokens, once for all",
                      "heads. Then each thread turns GROUP pairs at a time, halves of a head by 16-byte accesses." },
        }
    end,
}
