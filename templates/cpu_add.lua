-- add: one vector loop over contiguous elements.
return {
    ops = { "add" },
    targets = lib.cpu_targets,
    tunables = {}, constraints = {},
    derive = function(r)
        return {
            flops = "N", bytes = ("%d*N"):format(3 * lib.type_bytes[r.spec.dtype]),
            prose = { "Each worker adds one contiguous run of elements, whole vectors but for the end." },
        }
    end,
}
