-- attention: causal, grouped-query, by blocks with a running softmax; and its backward.

-- bf16 products where the machine has them; a pair of columns must not cross a head.
local function dots(r) return r.target.bf16_dot and r.spec.dtype == "bf16" and r.spec.dim % 2 == 0 end

local function floats(r) -- words of one worker's blocks
    local s, lanes = r.spec, lib.lanes(r.target)
    local row, cols, bk = lib.round_up(s.dim, lanes), s.heads // s.kv * r.config.bq, r.config.bk
    local backward = r.op.name == "attention_bwd"
    if dots(r) then
        if not backward then return (s.dim * cols + bk * row + 3 * bk * cols) // 2 + cols * row + 3 * cols end
        return s.dim * cols + cols * row + bk * row // 2 + 3 * bk * cols + bk * cols // 2 + cols * row + 2 * cols
    end
    local keys = bk * (2 * row + cols)
    if not backward then return s.dim * cols + keys + cols * row + 3 * cols end
    return 2 * s.dim * cols + keys + bk * cols + 3 * cols * row + 2 * cols
end

local function derive(r)
    local s, backward = r.spec, r.op.name == "attention_bwd"
    local row = lib.round_up(s.dim, lib.lanes(r.target))
    local own = lib.round_up(4 * floats(r), 64) + 64
    local launch = { scratch = ("threads*%d"):format(own) }
    if backward then launch.scratch = launch.scratch .. ("+8*T*kv*%d+64"):format(row) end
    local prose = {
        "A block of BQ tokens of all query heads of one key/value head makes COLS query rows. Scores of a",
        "key block are kept with the keys outermost, so softmax runs down the columns, COLS at a time,",
        "without sums across lanes. Sums are f32; blocks wholly after their queries are skipped.",
        dots(r) and "Products take pairs of bf16 (vdpbf16ps); probabilities are rounded to bf16 for them." or nil,
    }
    if backward then
        prose[#prose + 1] = "A worker owns whole (sequence, key/value head) pairs: dk and dv of the pair are summed in f32 in"
        prose[#prose + 1] = "scratch while the query blocks go by, and nothing is added by two workers."
    else
        prose[#prose + 1] = "Query blocks are dealt to the workers in turn, the same row from whichever worker."
    end
    return {
        template = "cpu_attention" .. (dots(r) and "_dot" or "") .. (backward and "_bwd" or ""),
        flops = backward and "5*T*T*heads*dim" or "2*T*T*heads*dim", bytes = "4*T*(heads+kv)*dim",
        launch = launch, prose = prose, tile = ("%dx%d"):format(r.config.bq, r.config.bk),
        derived = { { "own", own, "bytes of a worker's blocks" } },
    }
end

return {
    ops = { "attention", "attention_bwd" },
    targets = lib.cpu_targets,
    tunables = {
        { name = "bq", values = { 16, 32, 64, 128 }, doc = "tokens of a query block" },
        { name = "bk", values = { 32, 64, 128 }, doc = "tokens of a key block" },
    },
    constraints = {
        { why = "a block of query rows passes 1024", ok = function(r)
            return r.config.bq == 16 or r.spec.heads // math.max(1, r.spec.kv) * r.config.bq <= 1024
        end },
    },
    default = function(r)
        local group = r.spec.heads // math.max(1, r.spec.kv)
        return { bq = group <= 1 and 64 or group <= 2 and 32 or 16, bk = 64 }
    end,
    derive = derive,
}
