-- host: the Lua half of gen. Finds the descriptor that serves an op on a target, walks its config
-- space, and turns template text into kernel text. Runs outside the sandbox; what it loads
-- (descriptors, templates) runs inside, with `safe` as its whole world.
--
-- Descriptor (templates/NAME.lua returns one table):
--   ops, targets   which (op, target) pairs NAME.tmpl serves; dtypes and applies(r) may narrow it
--   columns        true: serves specs with columns=C too (down, dx, combine)
--   generic        1: stands back where a descriptor without it serves the request too (any GPU of a
--                  maker); 2 or true: stands back for those with 1 as well (any GPU)
--   tunables       { {name=, values={...}, doc=} ... }: the config space is their product
--   constraints    { {why=, ok=function(r) ... end} ... }: a config is legal when all are true
--   default(r)     the config used without tuning
--   derive(r)      { launch=, promise=, flops=, bytes=, derived={{name, value, doc}...}, tile=, prose={...} }
-- r is the request: op, spec, target, config, tokens, lib.

local files, safe = ...          -- name -> text; the sandbox's globals
local host = { descriptors = nil }

-- ---- templates -------------------------------------------------------------------------------

-- Lua source of one text line: literal pieces and ${expr}, written through _w.
local function text_line(line)
    local parts, at = {}, 1
    while true do
        local open = line:find("${", at, true)
        if not open then break end
        local close = line:match("^%b{}()", open + 1)
        if not close then error("unclosed ${ in: " .. line, 0) end
        local expr = line:sub(open + 2, close - 2)
        parts[#parts + 1] = ("%q"):format(line:sub(at, open - 1))
        parts[#parts + 1] = ("_e((%s), %q)"):format(expr, expr)
        at = close
    end
    parts[#parts + 1] = ("%q"):format(line:sub(at) .. "\n"):gsub("\\\n", "\\n")
    return "_w(" .. table.concat(parts, ", ") .. ")"
end

-- One Lua line per template line, so that Lua's own error positions are the template's.
local function translate(text)
    local out = {}
    for line in (text:gsub("\n$", "") .. "\n"):gmatch("(.-)\n") do
        local code = line:match("^%s*%%(.*)$")
        if not code then out[#out + 1] = text_line(line)
        elseif code:sub(1, 2) == "--" then out[#out + 1] = ""
        elseif code:sub(1, 1) == "%" then out[#out + 1] = text_line((line:gsub("%%%%", "%%", 1)))
        else out[#out + 1] = code end
    end
    return table.concat(out, "\n")
end

-- Text of a value inside ${}: whole numbers without a point, nothing for nil but an error.
local function expand(value, expr)
    if value == nil then error("${" .. expr .. "} is nil", 2) end
    if math.type(value) == "float" and value == math.floor(value) and math.abs(value) < 2^53 then
        return ("%d"):format(value)
    end
    return tostring(value)
end

-- Renders `text` with the names of `env`; `used` collects the files that went in.
function host.render(name, text, env, used)
    local out = {}
    local function render(part, part_text, names)
        local world = setmetatable({}, { __index = function(_, k)
            local v = names[k]
            if v == nil then v = safe[k] end
            return v
        end })
        world._e = expand
        world._w = function(...) for _, s in ipairs({ ... }) do out[#out + 1] = s end end
        world.include = function(other, extra)
            local file = "part/" .. other .. ".tmpl"
            if not files[file] then error("no template " .. file, 2) end
            used[#used + 1] = file
            render(file, files[file], setmetatable(extra or {}, { __index = world }))
        end
        local chunk, problem = load(translate(part_text), "@templates/" .. part, "t", world)
        if not chunk then error(problem, 0) end
        chunk()
    end
    render(name, text, env)
    return (table.concat(out):gsub("[ ]+\n", "\n"))
end

-- ---- descriptors -----------------------------------------------------------------------------

local function contains(list, value)
    for _, v in ipairs(list) do if v == value then return true end end
    return false
end

local function run_file(name)
    local world = setmetatable({ lib = safe.lib }, { __index = safe })
    local chunk, problem = load(files[name], "@templates/" .. name, "t", world)
    if not chunk then error(problem, 0) end
    return chunk()
end

local function sorted_names()
    local names = {}
    for name in pairs(files) do names[#names + 1] = name end
    table.sort(names)
    return names
end

local function load_all()
    safe.lib = files["lib.lua"] and run_file("lib.lua") or {}
    local descriptors = {} -- all of them or none: an error in one is said again at the next request
    for _, name in ipairs(sorted_names()) do
        local stem = name:match("^([%w_]+)%.lua$")
        if stem and stem ~= "lib" and stem ~= "host" then
            local d = run_file(name)
            for _, field in ipairs({ "ops", "targets", "tunables", "constraints" }) do
                if type(d[field]) ~= "table" then
                    error(("templates/%s: descriptor lacks the list '%s'"):format(name, field), 0)
                end
            end
            d.name = stem
            descriptors[#descriptors + 1] = d
        end
    end
    host.descriptors = descriptors
end

local function serves(d, r)
    return contains(d.ops, r.op.name) and contains(d.targets, r.target.name)
        and (not d.dtypes or contains(d.dtypes, r.spec.dtype)) and (d.columns or r.spec.columns == 0)
        and (not d.applies or d.applies(r))
end

local function generality(d) return d.generic == true and 2 or d.generic or 0 end

-- The one descriptor that serves the request, or nil: the least generic one.
function host.find(r)
    if not host.descriptors then load_all() end
    local found
    for _, d in ipairs(host.descriptors) do
        if serves(d, r) then
            if found and generality(found) == generality(d) then
                error(("both %s and %s serve %s on %s"):format(found.name, d.name, r.op.name,
                    r.target.name), 0)
            end
            if not found or generality(found) > generality(d) then found = d end
        end
    end
    return found
end

local function need(r)
    local d = host.find(r)
    r.lib = safe.lib
    if d then return d end
    error({ unsupported = ("no template serves op %s (dtype=%s) on %s"):format(r.op.name, r.spec.dtype,
        r.target.name) })
end

-- ---- configs ---------------------------------------------------------------------------------

-- The reason why r.config is not legal, or nil.
local function reason(d, r)
    for _, t in ipairs(d.tunables) do
        local v = r.config[t.name]
        if v == nil then return ("%s is missing (%s)"):format(t.name, t.doc) end
        if not contains(t.values, v) then
            return ("%s=%s is not one of %s (%s)"):format(t.name, v, table.concat(t.values, " "), t.doc)
        end
    end
    for _, c in ipairs(d.constraints) do
        if not c.ok(r) then return c.why end
    end
end

function host.default(r)
    local d = need(r)
    local config = d.default and d.default(r) or {}
    for _, t in ipairs(d.tunables) do
        if config[t.name] == nil then config[t.name] = t.values[1] end
    end
    return config
end

function host.tunables(r)
    local names = {}
    for i, t in ipairs(need(r).tunables) do names[i] = t.name end
    return names
end

function host.legal(r)
    return reason(need(r), r)
end

-- Calls visit(config, why or nil) for every point of the space until it returns false.
function host.each(r, visit)
    local d = need(r)
    local config = {}
    local function walk(i)
        local t = d.tunables[i]
        if not t then
            r.config = config
            return visit(config, reason(d, r))
        end
        for _, v in ipairs(t.values) do
            config[t.name] = v
            if not walk(i + 1) then return false end
        end
        return true
    end
    walk(1)
end

-- ---- emission --------------------------------------------------------------------------------

local function text_of(v, default) return v == nil and default or expand(v, "launch") end

-- Everything emit.c needs: body text, launch rule, cost, derived numbers, prose, files used.
function host.emit(r, prefix, key, hash)
    local d = need(r)
    local why = reason(d, r)
    if why then error({ illegal = why }) end
    local info = d.derive and d.derive(r) or {}
    local launch = info.launch or {}
    local file = (info.template or d.name) .. ".tmpl"
    if not files[file] then error("templates/" .. file .. " does not exist", 0) end
    local env = { op = r.op, spec = r.spec, target = r.target, config = r.config, tokens = r.tokens,
                  lib = r.lib, launch = launch, derived = {} }
    for _, row in ipairs(info.derived or {}) do env.derived[row[1]] = row[2] end
    local tile = info.tile and ("_" .. info.tile) or ""
    env.symbol = prefix .. tile .. "_" .. hash(key .. files[file] .. files[d.name .. ".lua"])
    local used = { file, d.name .. ".lua" }
    for k, v in pairs(info.env or {}) do env[k] = v end
    local body = host.render(file, files[file], env, used)
    local all = {}
    for _, name in ipairs(used) do all[#all + 1] = files[name] end
    local lines = {}
    for _, row in ipairs(info.derived or {}) do
        lines[#lines + 1] = ("%s = %s%s"):format(row[1], expand(row[2], row[1]),
            row[3] and " : " .. row[3] or "")
    end
    return {
        body = body, symbol = env.symbol, template = file .. "@" .. hash(table.concat(all)),
        derived = lines, prose = info.prose or {}, flops = text_of(info.flops, "0"),
        bytes = text_of(info.bytes, "0"),
        scratch = text_of(launch.scratch, "0"), grid = text_of(launch.grid, "1"),
        block = launch.block or 0, cluster = launch.cluster or 1,
        -- Kernels of other targets do not wait for the one before (part gpu_pdl): they must not start early.
        pdl = r.target.name == "sm_90a" and launch.pdl or 0,
        shared_bytes = launch.shared_bytes or 0, phases = launch.phases or 1,
        tmaps = launch.tmaps or {}, promise = info.promise or {},
    }
end

return host
