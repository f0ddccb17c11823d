// CPU kernels of yuv_to_rgb and rgb_to_yuv; the formulas are in ops/colour.h.
#pragma once

#include "fastvid/core/isa.h"
#include "fastvid/core/yuv.h"

FASTVID_DECLARE_KERNELS(
    // Luma rows [begin, end).
    void yuv_rows_to_rgb(const YuvToRgb& op, int64_t begin, int64_t end);
    // Chroma rows [begin, end) and the luma rows they cover.
    void rgb_rows_to_yuv(const RgbToYuv& op, int64_t begin, int64_t end);)
