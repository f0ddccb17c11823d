// What the kernels of attention take.
#pragma once

#include <cstdint>

namespace fastvid {

// q and out are (batch, queries, heads, dim), k and v (batch, keys, heads, dim) of one dtype;
// strides count elements, those of `dim` lie together.
struct Attention {
  // Values of `dim` at most.
  static constexpr int64_t kMaxDim = 256;

  struct Strides {
    int64_t batch, token, head;
  };
  const void *q, *k, *v;
  void* out;
  Strides q_strides, k_strides, v_strides, out_strides;
  const float* bias;  // (batch, heads, queries, keys), keys adjacent; null for none
  int64_t bias_batch, bias_head, bias_query;
  int64_t batch, heads, queries, keys, dim;
  float scale;
  bool causal;
};

// How the CPU kernels divide it. Heads are counted through all batches. Those of a group have
// their keys and values packed before any of its queries is worked on.
struct AttentionGroup {
  static constexpr int64_t kPanel = 64;  // keys packed together
  static int64_t panels(const Attention& a) { return (a.keys + kPanel - 1) / kPanel; }
  // Floats that the keys, and again the values, of one head take; 16-bit kernels use half.
  static int64_t floats(const Attention& a) {
    return panels(a) * kPanel * ((a.dim + 31) / 32 * 32);
  }
  // Queries of one task: the tiles of a task stay below 80 KB of stack.
  static int64_t queries(const Attention& a) { return a.dim <= 128 ? 48 : 24; }
  static int64_t blocks(const Attention& a) { return (a.queries + queries(a) - 1) / queries(a); }

  int64_t first_head;
  float *keys, *values;  // of the group's heads, one after another, each at a multiple of 64 bytes
};

}  // namespace fastvid
