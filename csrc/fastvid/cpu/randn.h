// CPU kernel of ops/randn.h. It assumes valid input.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"
#include "fastvid/core/noise.h"

// out[i] = element begin + i of the noise, for i < count.
FASTVID_DECLARE_KERNELS(void randn(const Noise& noise, uint64_t begin, int64_t count, float* out);)
