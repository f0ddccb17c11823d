// CPU kernels of ops/linear.h. They assume valid input.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"
#include "fastvid/core/linear.h"

// `linear_T` makes tiles [begin, end) from weights of T, `linear_rounded_T` from those weights
// rounded to bfloat16. `linear_round` rounds `count` values of x likewise.
FASTVID_DECLARE_KERNELS(void linear_float32(const Linear& a, int64_t begin, int64_t end);
                        void linear_float16(const Linear& a, int64_t begin, int64_t end);
                        void linear_bfloat16(const Linear& a, int64_t begin, int64_t end);
                        void linear_rounded_float32(const Linear& a, int64_t begin, int64_t end);
                        void linear_rounded_float16(const Linear& a, int64_t begin, int64_t end);
                        void linear_round(const float* x, float* to, int64_t count);)

#ifdef FASTVID_X86
// The same with the products of AVX-512 BF16, of rows of pairs that `linear_pair` makes.
namespace fastvid::cpu::avx512_bf16 {

void linear_float32(const Linear& a, int64_t begin, int64_t end);
void linear_float16(const Linear& a, int64_t begin, int64_t end);
void linear_bfloat16(const Linear& a, int64_t begin, int64_t end);
// Rows [begin, end) of x, `depth` float32 each, to rows of (depth + 1) / 2 pairs.
void linear_pair(const float* x, int64_t depth, uint32_t* to, int64_t begin, int64_t end);

}  // namespace fastvid::cpu::avx512_bf16
#endif
