-- lib: pure helpers that descriptors and templates share, under the name `lib`.
local lib = {}

-- C names of element types in the "c" dialect.
lib.c_types = { bf16 = "unsigned short", f32 = "float", f64 = "double", i32 = "int", i64 = "long", byte = "char" }

-- Fields of `struct args` of an op for CPU kernels: one 8-byte field per argument, then scratch.
function lib.c_args(op)
    local fields = {}
    for _, a in ipairs(op.args) do
        local t = lib.c_types[a.type]
        if a.role == "scalar" then fields[#fields + 1] = ("%s %s;"):format(t, a.name)
        else
            local const = a.role == "in" and "const " or ""
            fields[#fields + 1] = ("%s%s *%s; // [%s]%s"):format(const, t, a.name,
                a.shape:gsub(",", "]["), a.optional and " or NULL" or "")
        end
    end
    fields[#fields + 1] = "void *scratch;"
    return fields
end

lib.cpu_targets = { "cpu-scalar", "cpu-avx2", "cpu-avx512", "cpu-amx" }

-- f32 values a CPU target computes at a time.
function lib.lanes(target) return target.vector_bits == 0 and 1 or target.vector_bits // 32 end

-- Rows of a register tile of part/cpu_mm, two vectors wide.
function lib.mm_rows(target) return target.registers >= 32 and 8 or 4 end

-- The argument of an op by name.
function lib.arg(op, name)
    for _, a in ipairs(op.args) do if a.name == name then return a end end
    error(("op %s has no argument %s"):format(op.name, name))
end

-- Text that loads or stores LANES elements at `p + i` of a row of `length` elements called `name`;
-- rows that are not whole vectors get the form that stops at the row's end.
function lib.cpu_row(target, length, name)
    local cut = length % lib.lanes(target) ~= 0
    local row = {}
    function row.load(type, p)
        if cut then return ("load_%s_upto(%s + i, %s - i)"):format(type, p, name) end
        return ("load_%s(%s + i)"):format(type, p)
    end
    function row.store(type, p, value)
        if cut then return ("store_%s_upto(%s + i, %s - i, %s)"):format(type, p, name, value) end
        return ("store_%s(%s + i, %s)"):format(type, p, value)
    end
    return row
end

-- Lines of C that store LANES elements around the caches, for rows of whole vectors; nil elsewhere.
function lib.cpu_stream(target, type, length)
    local lanes = lib.lanes(target)
    if lanes == 1 or length % lanes ~= 0 then return nil end
    if type == "f32" then
        return { "INLINE void stream_f32(float *p, vf v) { // vmovntps: whole lines, not kept in cache",
                 '    __asm__ volatile("vmovntps %1, %0" : "=m"(*(vf_mem *)p) : "v"(v));', "}" }
    end
    return { "INLINE void stream_bf16(bf16 *p, vf v) { // vmovntdq: whole lines, not kept in cache",
             "    vh h;", "    store_bf16((bf16 *)&h, v);",
             '    __asm__ volatile("vmovntdq %1, %0" : "=m"(*(vh_mem *)p) : "x"(h));', "}" }
end

-- A number as a C float constant.
function lib.c_float(x)
    local text = ("%.9g"):format(x)
    return text .. (text:find("[.en]") and "f" or ".0f")
end

-- A descriptor of a CPU op without tunables: `derive` fills in the rest.
function lib.cpu_op(op, derive)
    return { ops = { op }, targets = lib.cpu_targets, tunables = {}, constraints = {}, derive = derive }
end

-- Rows of the tallest register tile two vectors wide that the registers of a CPU target hold.
function lib.cpu_tile_rows(target)
    if target.vector_bits == 0 then return 4 end
    return target.registers >= 32 and 12 or 6
end

-- Heights of the register tiles of a CPU GEMM: the full one, then shorter ones for what is left.
function lib.cpu_tiles(mr)
    local step = mr % 4 == 0 and 4 or 2
    local tiles = {}
    for rows = mr, step, -step do tiles[#tiles + 1] = rows end
    return tiles
end

function lib.has(list, value)
    for _, v in ipairs(list) do if v == value then return true end end
    return false
end

function lib.ceil_div(a, b) return (a + b - 1) // b end
function lib.round_up(a, b) return (a + b - 1) // b * b end

-- Elements of type name -> bytes.
lib.type_bytes = { bf16 = 2, f32 = 4, f64 = 8, i32 = 4, i64 = 8, byte = 1 }

-- Columns of H that down, dx and combine make: a block of them (spec key columns), or all.
function lib.columns(spec) return spec.columns > 0 and spec.columns or spec.H end
function lib.columns_text(spec) return spec.columns > 0 and tostring(spec.columns) or "H" end -- in expressions

lib.gpu_targets = { "sm_90a", "sm_80", "gfx942", "gfx90a" }

-- Parameters of a GPU kernel, a line each, in the order that device_*.c passes them: the op's arguments,
-- scratch, the phase when there are several. `maps` names tensor maps (CUDA), which come last.
function lib.gpu_params(op, launch, maps)
    local list = {}
    local function put(declaration, comment) list[#list + 1] = { declaration, comment } end
    for _, a in ipairs(op.args) do
        local t = lib.c_types[a.type]
        if a.role == "scalar" then put(t .. " " .. a.name)
        else
            put((a.role == "in" and "const " or "") .. t .. " *" .. a.name,
                ("[%s]%s"):format((a.shape:gsub(",", "][")), a.optional and " or NULL" or ""))
        end
    end
    put("void *scratch")
    if (launch.phases or 1) > 1 then put("long phase", "0, 1, ...: one launch each") end
    for _, m in ipairs(maps or {}) do put("const __grid_constant__ tensor_map " .. m) end
    local lines = {}
    for i, p in ipairs(list) do
        lines[i] = "\n    " .. p[1] .. (i < #list and "," or "") .. (p[2] and " // " .. p[2] or "")
    end
    return table.concat(lines) .. "\n"
end

-- What the CDNA GEMMs promise about their machine code: four waves, 2 x 2 over a tile, each lane with 8 steps of
-- k an operand, which two matrix instructions share. Where one tile is more than the `whole` result, the compiler
-- leaves out products that nobody stores, and their number is not promised.
function lib.cdna_promise(c, lds, whole)
    local products = (c.bm // 2 // c.mi) * (c.bn // 2 // c.mi)
    return { lds = lds, waves = c.waves, matrix = c.mi == 32 and "32x32x8" or "16x16x16",
             matrix_count = whole and 0 or products * 2 * (c.bk // (8 * (64 // c.mi))) }
end

return lib
