-- add: one vector loop over contiguous elements.
return lib.cpu_op("add", function(r)
    return {
        flops = "N", bytes = ("%d*N"):format(3 * lib.type_bytes[r.spec.dtype]),
        prose = { "Each worker adds one contiguous run of elements, whole vectors but for the end." },
    }
end)
