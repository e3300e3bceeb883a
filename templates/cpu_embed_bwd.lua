-- embed_bwd: scatter-add of token gradients without atomics: workers own columns of the table.
return lib.cpu_op("embed_bwd", function(r)
    local rounded = lib.arg(r.op, "dtable").type ~= "f32"
    return {
        flops = "T*H", bytes = ("%d*T*H+4*V*H"):format(lib.type_bytes[r.spec.dtype]),
        launch = { scratch = rounded and "4*V*H" or "0" },
        prose = {
            "A worker owns a block of columns of the table, and when there are more workers than blocks",
            "also every n-th vocabulary row. It walks all tokens in order, so each sum has one order.",
            rounded and "Sums are kept in f32 in scratch and rounded once at the end." or nil,
        },
    }
end)
