// CPU kernels of ops/qk_norm_rope.h. They assume valid input.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"
#include "fastvid/core/norm_rope.h"

// The tokens [begin, end) of all batches, counted through, in float32, float16 or bfloat16.
FASTVID_DECLARE_KERNELS(void qk_norm_rope_float32(const NormRope& x, int64_t begin, int64_t end);
                        void qk_norm_rope_float16(const NormRope& x, int64_t begin, int64_t end);
                        void qk_norm_rope_bfloat16(const NormRope& x, int64_t begin, int64_t end);)
