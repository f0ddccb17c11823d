// One of the two arrays of qk_norm_rope, as its kernels take it.
#pragma once

#include <cstdint>

namespace fastvid {

enum class QkNorm { kNone, kHead, kFull };
enum class Rope { kNone, kInterleaved, kHalf };

// (batch, tokens, heads, dim) of some dtype; strides count elements, those of `dim` lie together.
struct NormRope {
  struct Strides {
    int64_t batch, token, head;
  };
  const void* in;
  void* out;
  Strides in_strides, out_strides;
  int64_t batch, tokens, heads, dim;
  QkNorm norm;
  Rope rope;
  const float* weight;  // (dim,) or (heads * dim,), null for ones
  const float *cos, *sin;
  int64_t table_token, table_head;  // elements from one row of the tables to the next
  float eps;
  bool stream;  // write past the caches
};

}  // namespace fastvid
