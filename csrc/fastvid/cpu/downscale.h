// CPU kernel of ops/downscale.h. It assumes valid input.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"

// `rows` and `width` are those of `out`; `in` has factor times as many of both.
FASTVID_DECLARE_KERNELS(void downscale(const float* in, float* out, int64_t rows, int64_t width,
                                       int64_t factor);)
