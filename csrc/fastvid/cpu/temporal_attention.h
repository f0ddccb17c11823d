// CPU kernels of ops/temporal_attention.h. They assume valid input.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"

namespace fastvid::cpu {

// A view (B, T, S, H, D) with D contiguous; strides in bytes.
struct TemporalView {
  char* data;
  int64_t batch, frame, position, head;

  char* at(int64_t b, int64_t s, int64_t h) const {
    return data + b * batch + s * position + h * head;
  }
};

struct TemporalAttention {
  static constexpr int64_t kMaxFrames = 64, kMaxDim = 256;

  TemporalView q, k, v, out;
  int64_t frames, positions, heads, dim;
  // Heads of one unit of work, and such groups in all heads.
  int64_t group, groups;
  int64_t units;  // batch * positions * groups
  float scale;    // times log2(e)
  // Added to the scores: bias * log2(e), (heads, key, query), aligned to 64 bytes, a row of queries
  // padded to a multiple of 16 (`table_row`); -inf masks. Null adds nothing; `table_head` is 0
  // where all heads share it, else frames.
  const float* table;
  int64_t table_row, table_head;
  bool stream;  // write past the caches; rows of out must be whole cache lines
};

}  // namespace fastvid::cpu

FASTVID_DECLARE_KERNELS(
    // Units [begin, end).
    void temporal_attention_float32(const TemporalAttention& a, int64_t begin, int64_t end);
    void temporal_attention_float16(const TemporalAttention& a, int64_t begin, int64_t end);
    void temporal_attention_bfloat16(const TemporalAttention& a, int64_t begin, int64_t end);)
