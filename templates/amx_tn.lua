-- amx_tn: weight gradients, dw = dy^T x over the ragged rows of an expert, on AMX tiles.
--
-- The sum runs over routed rows. Pairs of rows of x interleaved are right operands at one shuffle a
-- vector; rows of dy are transposed to left operands, 32 columns of them against all columns of x.

local function out_rows(r) return ({ dw1 = r.spec.U, dw2 = r.spec.H, linear_dw = r.spec.F })[r.op.name] end
local function out_cols(r) return r.op.name == "dw2" and r.spec.F or r.spec.H end
local function planes(r) return r.op.name == "linear_dw" and r.spec.out == "f32" and 3 or 1 end

return {
    ops = { "dw1", "dw2", "linear_dw" },
    targets = { "cpu-amx" },
    dtypes = { "bf16" },
    tunables = {
        { name = "kb", values = { 512, 256, 1024 }, doc = "routed rows summed before the sums rest" },
        { name = "room", values = { 1024, 512, 2048 }, doc = "KiB of packed columns that stay in L2" },
        { name = "group", values = { 4, 2, 8 }, doc = "panels of 32 rows whose sums rest together" },
        { name = "near", values = { 1, 0 }, doc = "1: fetch packed columns to L1 a step ahead" },
    },
    constraints = {
        { why = "room must hold 32 columns of kb rows",
          ok = function(r) return r.config.room * 512 >= r.config.kb * 32 end },
    },
    derive = function(r)
        local c = r.config
        local experts = r.op.name == "linear_dw" and 1 or r.spec.E
        local rows, cols = out_rows(r), out_cols(r)
        local room = c.room * 512
        local pass = c.kb // 32
        local s_bytes = pass * 2048 * planes(r)
        local columns = room // c.kb // 32 * 32
        local worker = r.lib.round_up(2 * room + s_bytes + c.group * columns // 32 * 4096, 4096) + 64 * 5
        local count = r.op.name == "linear_dw" and "T" or "R"
        local out_bytes = r.spec.wgrad == "f32" and 4 or 2
        return {
            launch = { scratch = ("threads*%d"):format(worker) },
            flops = ("2*%s*%d*%d"):format(count, rows, cols),
            bytes = ("%d*%d*%d+2*%s*%d"):format(out_bytes * experts, rows, cols, count, rows + cols),
            tile = ("32x%d"):format(columns),
            derived = {
                { "experts", experts, "groups of rows" },
                { "out_rows", rows, "rows of a gradient" },
                { "out_cols", cols, "columns of a gradient" },
                { "planes", planes(r), "bf16 terms of an element of the left operand" },
                { "panels", r.lib.ceil_div(rows, 32), "panels of 32 rows" },
                { "pass", pass, "steps of 32 routed rows before the sums rest" },
                { "room", room, "packed elements of a worker" },
                { "group", c.group, "panels whose sums rest together" },
                { "s_bytes", s_bytes, "packed panel of a worker" },
                { "worker_bytes", worker, "scratch of a worker" },
            },
            prose = {
                "A worker takes a stretch of (expert, panel of 32 gradient rows) pairs. For each expert it",
                "packs as many columns of the right operand as stay in L2 (pairs of routed rows",
                "interleaved), then panel by panel transposes 32 columns of the left operand, multiplies",
                "32 x 32 blocks with 2 x 2 tiles, and adds or writes the sums. Experts of more rows than one",
                "pass holds keep sums in scratch between passes. Rows are summed in rising order.",
            },
        }
    end,
}
