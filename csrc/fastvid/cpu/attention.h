// CPU kernels of ops/attention.h. They assume valid input.
#pragma once

#include <cstdint>

#include "fastvid/core/attention.h"
#include "fastvid/core/isa.h"

// `pack` packs the panels [begin, end) of keys and values of a group's heads, counted through;
// `attend` then makes the blocks of queries [begin, end), counted through likewise.
FASTVID_DECLARE_KERNELS(void attention_pack_float32(const Attention& a, const AttentionGroup& group,
                                                    int64_t begin, int64_t end);
                        void attention_pack_float16(const Attention& a, const AttentionGroup& group,
                                                    int64_t begin, int64_t end);
                        void attention_pack_bfloat16(const Attention& a,
                                                     const AttentionGroup& group, int64_t begin,
                                                     int64_t end);
                        void attention_float32(const Attention& a, const AttentionGroup& group,
                                               int64_t begin, int64_t end);
                        void attention_float16(const Attention& a, const AttentionGroup& group,
                                               int64_t begin, int64_t end);
                        void attention_bfloat16(const Attention& a, const AttentionGroup& group,
                                                int64_t begin, int64_t end);)

#ifdef FASTVID_X86
// The same for bfloat16 with the products of AVX-512 BF16, which are not those of float32.
namespace fastvid::cpu::avx512_bf16 {

void attention_pack_bfloat16(const Attention& a, const AttentionGroup& group, int64_t begin,
                             int64_t end);
void attention_bfloat16(const Attention& a, const AttentionGroup& group, int64_t begin,
                        int64_t end);

}  // namespace fastvid::cpu::avx512_bf16
#endif
