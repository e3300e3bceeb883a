-- combine: every token sums its K weighted rows; the K loads of a column are in flight together.
local combine = lib.cpu_op("combine", function(r)
    return {
        flops = "2*T*K*" .. lib.columns_text(r.spec),
        bytes = ("%d*T*%s*(K+1)"):format(lib.type_bytes[r.spec.dtype], lib.columns_text(r.spec)),
        prose = {
            "A worker owns a run of tokens. A token first lists its rows that were not dropped, then sums",
            "them column block by column block in f32, k rising, and rounds once.",
        },
    }
end)
combine.columns = true
return combine
