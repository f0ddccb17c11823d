// CPU kernel of ops/randn.h. It assumes valid input.
#pragma once

#include <cstdint>

#include "fastvid/core/half.h"
#include "fastvid/core/isa.h"
#include "fastvid/core/noise.h"

// out[i] = element begin + i of the noise, for i < count.
FASTVID_DECLARE_KERNELS(void randn(const Noise& noise, uint64_t begin, int64_t count, float* out);
                        void randn_half(const Noise& noise, uint64_t begin, int64_t count,
                                        Half* out);
                        void randn_bfloat16(const Noise& noise, uint64_t begin, int64_t count,
                                            BFloat16* out);)
