// CPU kernels of ops/luma.h. They assume valid input.
#pragma once

#include "fastvid/core/isa.h"
#include "fastvid/core/luma.h"

FASTVID_DECLARE_KERNELS(
    // Pixels [begin, end).
    void rgb_to_luma(const RgbToLuma& op, int64_t begin, int64_t end);
    // Output rows [begin, end).
    void luma_rows_to_rgb(const LumaToRgb& op, int64_t begin, int64_t end);)
