-- embed: copies one table row per token.
return lib.cpu_op("embed", function(r)
    return {
        flops = "0", bytes = ("%d*T*H"):format(2 * lib.type_bytes[r.spec.dtype]),
        prose = { "A worker owns a run of tokens. A token outside the vocabulary gets a row of zeros." },
    }
end)
