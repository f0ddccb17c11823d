// Attention block by block (FlashAttention, Dao et al. 2022, arXiv 2205.14135): a block of queries
// passes over its keys once and keeps the largest score so far, the sum of the exponentials and
// the sum of the weighted values, all relative to that score. What differs between number formats
// is in `Math`.
#pragma once

#include "fastvid/core/attention.h"
#include "fastvid/cpu/floats.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

constexpr int64_t kQueries = 48;  // of a block, at most
constexpr int64_t kRows = 6;      // of them that are multiplied at a time
constexpr int64_t kKeys = 128;    // between two looks at the largest score
constexpr int64_t kPanel = AttentionGroup::kPanel;
constexpr int64_t kTile = 48 * 128;  // the most queries times padded dim
constexpr float kLog2E = 1.44269504f;
constexpr float kLowest = -3.402823466e38f;
constexpr float kInfinity = __builtin_inff();

FASTVID_INLINE int64_t round_up(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}
FASTVID_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// One head of one batch.
struct HeadOf {
  int64_t batch, head;
  HeadOf(const Attention& a, int64_t index) : batch(index / a.heads), head(index % a.heads) {}
  template <class T>
  T* at(T* data, const Attention::Strides& s) const {
    return data + batch * s.batch + head * s.head;
  }
};

// What a block keeps of each of its queries; `sum` is in 16 parts.
struct State {
  alignas(64) float out[kTile];
  alignas(64) float sum[kQueries * kFloats];
  float top[kQueries];

  void clear(int64_t rows, int64_t width) {
    for (int64_t i = 0; i < rows * width; i += kFloats) store(out + i, splat(0.0f));
    for (int64_t i = 0; i < rows; ++i) {
      store(sum + i * kFloats, splat(0.0f));
      top[i] = kLowest;
    }
  }
};

// The scores of one query and `count` keys, from the `first`-th on, with bias and with -infinity
// for keys it must not see. In units of the unscaled products: the bias is divided by the scale.
struct Masking {
  const float* bias;  // of the query and the first key, or null
  float inverse_scale;
  int64_t count, seen;

  FASTVID_INLINE void apply(float* scores) const {
    for (int64_t j = 0; j < round_up(count, 2 * kFloats); j += kFloats) {
      Floats s = load(scores + j);
      if (bias != nullptr) {
        s = fma(load_first(bias + j, count - j), splat(inverse_scale), s);
      }
      store(scores + j, keep_first(s, seen - j, -kInfinity));
    }
  }
};

FASTVID_INLINE float largest(const float* scores, int64_t count) {
  Floats even = load(scores), odd = load(scores + kFloats);
  for (int64_t j = 2 * kFloats; j < count; j += 2 * kFloats) {
    even = max(even, load(scores + j));
    odd = max(odd, load(scores + j + kFloats));
  }
  return reduce_max(max(even, odd));
}

// Turns the scores of row `i` into weights and brings what is kept of it to the new largest score.
template <class Math>
FASTVID_INLINE void exponentiate(typename Math::Tile& tile, State& state, int64_t i, float scale,
                                 int64_t count, int64_t width) {
  float* scores = tile.scores + i * kKeys;
  const float found = largest(scores, count);
  const float before = state.top[i], top = found > before ? found : before;
  const Floats offset = splat(top), factor = splat(scale);
  Floats sum = splat(0.0f);
  for (int64_t j = 0; j < count; j += 2 * kFloats) {
    const Floats a = Math::power((load(scores + j) - offset) * factor);
    const Floats b = Math::power((load(scores + j + kFloats) - offset) * factor);
    sum = sum + (a + b);
    Math::put_weights(tile, i, j, a, b);
  }
  float* kept = state.sum + i * kFloats;
  if (top == before) {
    store(kept, load(kept) + sum);
    return;
  }
  const Floats shrink = exp2(splat((before - top) * scale));
  store(kept, load(kept) * shrink + sum);
  float* out = state.out + i * width;
  for (int64_t d = 0; d < width; d += kFloats) store(out + d, load(out + d) * shrink);
  state.top[i] = top;
}

// Writes a row that is complete; without any key left to see, 0.
template <class T>
FASTVID_INLINE void finish(const State& state, int64_t i, int64_t width, int64_t dim, T* out) {
  const float sum = reduce_add(load(state.sum + i * kFloats));
  const Floats inverse = splat(sum == 0.0f ? 0.0f : 1.0f / sum);
  for (int64_t d = 0; d < dim; d += kFloats) {
    store_first(out + d, load(state.out + i * width + d) * inverse, dim - d);
  }
}

// Queries [first, first + rows) of one head.
template <class Math>
void attend(const Attention& a, const float* keys, const float* values, const HeadOf& head,
            int64_t first, int64_t rows) {
  using T = typename Math::T;
  typename Math::Tile tile;
  State state;
  const int64_t width = round_up(a.dim, kFloats), padded = round_up(rows, kRows);
  state.clear(padded, width);
  const T* q = head.at(static_cast<const T*>(a.q), a.q_strides) + first * a.q_strides.token;
  Math::load_queries(tile, q, a.q_strides.token, rows, padded, a.dim);
  const float* bias = a.bias == nullptr ? nullptr
                                        : a.bias + head.batch * a.bias_batch +
                                              head.head * a.bias_head + first * a.bias_query;
  const int64_t limit = a.causal ? smaller(a.keys, first + rows) : a.keys;
  for (int64_t start = 0; start < limit; start += kKeys) {
    const int64_t count = smaller(kKeys, limit - start);
    Math::scores(tile, keys, start, count, padded, a.dim);
    const bool masked =
        bias != nullptr || count % (2 * kFloats) != 0 || (a.causal && start + count > first + 1);
    for (int64_t i = 0; i < rows; ++i) {
      if (masked) {
        const int64_t seen = a.causal ? smaller(count, first + i + 1 - start) : count;
        const float* row = bias == nullptr ? nullptr : bias + i * a.bias_query + start;
        const Masking masking{row, 1.0f / a.scale, count, seen};
        masking.apply(tile.scores + i * kKeys);
      }
      exponentiate<Math>(tile, state, i, a.scale * kLog2E, count, width);
    }
    Math::accumulate(tile, state.out, values, start, count, padded, width);
  }
  T* out = head.at(static_cast<T*>(a.out), a.out_strides) + first * a.out_strides.token;
  for (int64_t i = 0; i < rows; ++i, out += a.out_strides.token) {
    finish(state, i, width, a.dim, out);
  }
}

template <class Math>
void attend_blocks(const Attention& shared, const AttentionGroup& group, int64_t begin,
                   int64_t end) {
  const Attention a = shared;  // a copy nothing else can change, so that it stays in registers
  const int64_t blocks = AttentionGroup::blocks(a), queries = AttentionGroup::queries(a);
  const int64_t size = AttentionGroup::floats(a);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t index = task / blocks, first = task % blocks * queries;
    attend<Math>(a, group.keys + index * size, group.values + index * size,
                 HeadOf(a, group.first_head + index), first, smaller(queries, a.queries - first));
  }
}

template <class Math>
void pack_panels(const Attention& a, const AttentionGroup& group, int64_t begin, int64_t end) {
  using T = typename Math::T;
  const int64_t panels = AttentionGroup::panels(a), size = AttentionGroup::floats(a);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t index = task / panels, first = task % panels * kPanel;
    const HeadOf head(a, group.first_head + index);
    const T* k = head.at(static_cast<const T*>(a.k), a.k_strides) + first * a.k_strides.token;
    const T* v = head.at(static_cast<const T*>(a.v), a.v_strides) + first * a.v_strides.token;
    const int64_t count = smaller(kPanel, a.keys - first);
    Math::pack_keys(group.keys + index * size, k, a.k_strides.token, first, count, a.dim);
    Math::pack_values(group.values + index * size, v, a.v_strides.token, first, count, a.dim);
  }
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
