-- embed, embed_bwd: rows of a table, looked up and summed back.
local threads = 256

local function forward(r)
    return {
        launch = { block = threads, pdl = 1, grid = ("(T*(H/8)+%d)/%d"):format(threads - 1, threads) },
        derived = { { "THREADS", threads, "of a block" } },
        flops = "0", bytes = ("%d*T*H"):format(2 * lib.type_bytes[r.spec.dtype]),
        prose = { "One thread copies 8 neighbouring columns of one token." },
    }
end

local function backward(r)
    local by_token = ("max(1,(T+%d)/%d)"):format(threads - 1, threads)
    return {
        template = "gpu_embed_bwd",
        launch = { block = threads, phases = 5, pdl = 1, scratch = "8*V+8*T+16",
                   grid = ("(V+%d)/%d;%s;%s;%s;V*((H/8+%d)/%d)"):format(threads, threads, by_token, by_token, by_token,
                       threads - 1, threads) },
        derived = { { "THREADS", threads, "of a block" }, { "LIST", r.config.list, "tokens of one row that are sorted at once" } },
        flops = "T*H",
        bytes = ("%d*T*H+%d*V*H"):format(lib.type_bytes[r.spec.dtype], lib.type_bytes[lib.arg(r.op, "dtable").type]),
        prose = {
            "Phases 0 to 3 gather the tokens of every row of the table: counters at zero; each token counts itself",
            "and keeps its number among its row's; a row's first one takes room for all; tokens enter their lists.",
            "Integer atomics only, and the order of a list does not matter, because",
            "phase 4 sorts it: a block owns 8*THREADS columns of one row and adds its tokens in rising order.",
        },
    }
end

return {
    ops = { "embed", "embed_bwd" },
    targets = lib.gpu_targets, generic = true,
    tunables = {
        { name = "list", values = { 256, 1024 }, doc = "embed_bwd: the longest list of tokens that is sorted by counting" },
    },
    constraints = { { why = "embed has no lists: keep 1024",
                      ok = function(r) return r.op.name == "embed_bwd" or r.config.list == 1024 end } },
    default = function() return { list = 1024 } end,
    derive = function(r) return r.op.name == "embed" and forward(r) or backward(r) end,
}
