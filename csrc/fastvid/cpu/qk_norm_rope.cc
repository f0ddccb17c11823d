#include "fastvid/cpu/qk_norm_rope.h"

#include <cstddef>

#include "fastvid/cpu/floats.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// Squares are summed in four rows of sixteen partial sums, so that additions do not wait for each
// other; the vectors of a head take turns among them.
struct Squares {
  static constexpr int64_t kTurn = 4 * kFloats;
  Floats sums[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};

  template <class T>
  FASTVID_INLINE void add(const T* x, int64_t dim) {
    int64_t i = 0;
    for (; i + kTurn <= dim; i += kTurn) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const Floats a = load(x + i + j * kFloats);
        sums[j] = sums[j] + a * a;
      }
    }
    for (int j = 0; i < dim; i += kFloats, ++j) {
      const Floats a = load_first(x + i, dim - i), square = a * a;
      for (int k = 0; k < 4; ++k) {
        if (k == j) sums[k] = sums[k] + square;
      }
    }
  }
  // Heads that follow each other are one where none ends in the middle of a turn.
  template <class T>
  FASTVID_INLINE void add_heads(const T* x, int64_t stride, int64_t heads, int64_t dim) {
    if (stride == dim && dim % kTurn == 0) {
      add(x, heads * dim);
    } else {
      for (int64_t h = 0; h < heads; ++h) add(x + h * stride, dim);
    }
  }
  FASTVID_INLINE float gain(int64_t count, float eps) const {
    const Floats sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    return 1.0f / __builtin_sqrtf(reduce_add(sum) / static_cast<float>(count) + eps);
  }
};

// Sixteen normalised values; the rest of a partial vector is 0.
template <class T>
FASTVID_INLINE Floats normalised(const T* x, const float* weight, Floats gain, int64_t n) {
  const Floats scaled = (n < kFloats ? load_first(x, n) : load(x)) * gain;
  if (weight == nullptr) return scaled;
  return scaled * (n < kFloats ? load_first(weight, n) : load(weight));
}

template <class T>
FASTVID_INLINE void put(T* out, const Floats& value, int64_t n, bool stream) {
  if (n < kFloats) {
    store_first(out, value, n);
  } else if (stream) {
    store_past_caches(out, value);
  } else {
    store(out, value);
  }
}

template <class T>
struct Head {
  const T* x;
  T* out;
  // The same place of the next token, whose sums come next: fetched while this one is turned.
  const T* next;
  const float *weight, *cos, *sin;
  Floats gain;
  int64_t dim;
  bool stream;

  FASTVID_INLINE void plain() const {
    for (int64_t i = 0; i < dim; i += kFloats) {
      __builtin_prefetch(next + i);
      put(out + i, normalised(x + i, at(i), gain, dim - i), dim - i, stream);
    }
  }
  // Pairs (2i, 2i + 1).
  FASTVID_INLINE void interleaved() const {
    int64_t i = 0;
    for (; i + kPair <= dim; i += kPair) {
      __builtin_prefetch(next + i);
      if constexpr (sizeof(T) == 4) __builtin_prefetch(next + i + kFloats);
      const Pairs u = load_pairs(x + i);
      const Pairs y = turned(u, weight == nullptr ? Pairs{} : load_pairs_like<T>(weight + i),
                             cos + i / 2, sin + i / 2);
      store_pairs(out + i, y, stream);
    }
    if (i < dim) last_pairs(i);
  }
  // Pairs (i, i + dim / 2).
  FASTVID_INLINE void half() const {
    const int64_t middle = dim / 2;
    for (int64_t i = 0; i < middle; i += kFloats) {
      const int64_t n = middle - i;
      __builtin_prefetch(next + i);
      __builtin_prefetch(next + middle + i);
      const Floats a = normalised(x + i, at(i), gain, n);
      const Floats b = normalised(x + middle + i, at(middle + i), gain, n);
      const Floats c = n < kFloats ? load_first(cos + i, n) : load(cos + i);
      const Floats s = n < kFloats ? load_first(sin + i, n) : load(sin + i);
      put(out + i, a * c - b * s, n, stream);
      put(out + middle + i, b * c + a * s, n, stream);
    }
  }

 private:
  static constexpr int64_t kPair = 2 * kFloats;

  FASTVID_INLINE Pairs turned(Pairs u, const Pairs& w, const float* c_at, const float* s_at) const {
    const Floats c = load_for_pairs<T>(c_at), s = load_for_pairs<T>(s_at);
    u = {u.even * gain, u.odd * gain};
    if (weight != nullptr) u = {u.even * w.even, u.odd * w.odd};
    return {u.even * c - u.odd * s, u.odd * c + u.even * s};
  }
  // The pairs that do not fill a vector, by way of whole ones.
  void last_pairs(int64_t i) const {
    const auto n = static_cast<size_t>(dim - i);
    T values[kPair] = {};
    float weights[kPair] = {}, c[kFloats] = {}, s[kFloats] = {};
    __builtin_memcpy(values, x + i, n * sizeof(T));
    if (weight != nullptr) __builtin_memcpy(weights, weight + i, n * sizeof(float));
    __builtin_memcpy(c, cos + i / 2, n / 2 * sizeof(float));
    __builtin_memcpy(s, sin + i / 2, n / 2 * sizeof(float));
    store_pairs(values, turned(load_pairs(values), load_pairs_like<T>(weights), c, s), false);
    __builtin_memcpy(out + i, values, n * sizeof(T));
  }
  FASTVID_INLINE const float* at(int64_t i) const {
    return weight == nullptr ? nullptr : weight + i;
  }
};

// `kDim` is the dim where it is a usual one: a head is then few enough vectors to be one sequence.
template <class T, Rope kRope, int64_t kDim>
void tokens(const NormRope& shared, int64_t begin, int64_t end) {
  const NormRope a = shared;  // a copy nothing else can change, so that it stays in registers
  const int64_t dim = kDim != 0 ? kDim : a.dim;
  const auto* in = static_cast<const T*>(a.in);
  auto* out = static_cast<T*>(a.out);
  for (int64_t token = begin; token < end; ++token) {
    const int64_t b = token / a.tokens, t = token - b * a.tokens;
    const T* x = in + b * a.in_strides.batch + t * a.in_strides.token;
    Head<T> head{.x = x,
                 .out = out + b * a.out_strides.batch + t * a.out_strides.token,
                 .next = x,
                 .weight = a.weight,
                 .cos = a.cos + t * a.table_token,
                 .sin = a.sin + t * a.table_token,
                 .gain = splat(1.0f),
                 .dim = dim,
                 .stream = a.stream};
    if (a.norm == QkNorm::kFull) {
      Squares squares;
      squares.add_heads(x, a.in_strides.head, a.heads, dim);
      head.gain = splat(squares.gain(a.heads * dim, a.eps));
    }
    if (token + 1 < end && t + 1 < a.tokens) head.next = x + a.in_strides.token;
    for (int64_t h = 0; h < a.heads; ++h) {
      if (a.norm == QkNorm::kHead) {
        Squares squares;
        squares.add(head.x, dim);
        head.gain = splat(squares.gain(dim, a.eps));
      }
      if constexpr (kRope == Rope::kNone) head.plain();
      if constexpr (kRope == Rope::kInterleaved) head.interleaved();
      if constexpr (kRope == Rope::kHalf) head.half();
      head.x += a.in_strides.head;
      head.next += a.in_strides.head;
      head.out += a.out_strides.head;
      head.cos += a.table_head;
      head.sin += a.table_head;
      if (a.norm == QkNorm::kFull && a.weight != nullptr) head.weight += dim;
    }
  }
  if (a.stream) fence();
}

template <class T, Rope kRope>
void any_dim(const NormRope& x, int64_t begin, int64_t end) {
  if (x.dim == 128) return tokens<T, kRope, 128>(x, begin, end);
  if (x.dim == 64) return tokens<T, kRope, 64>(x, begin, end);
  tokens<T, kRope, 0>(x, begin, end);
}

template <class T>
void run(const NormRope& x, int64_t begin, int64_t end) {
  switch (x.rope) {
    case Rope::kInterleaved:
      return any_dim<T, Rope::kInterleaved>(x, begin, end);
    case Rope::kHalf:
      return any_dim<T, Rope::kHalf>(x, begin, end);
    default:
      return any_dim<T, Rope::kNone>(x, begin, end);
  }
}

}  // namespace

void qk_norm_rope_float32(const NormRope& x, int64_t begin, int64_t end) {
  run<float>(x, begin, end);
}
void qk_norm_rope_float16(const NormRope& x, int64_t begin, int64_t end) {
  run<Half>(x, begin, end);
}
void qk_norm_rope_bfloat16(const NormRope& x, int64_t begin, int64_t end) {
  run<BFloat16>(x, begin, end);
}

}  // namespace fastvid::cpu::FASTVID_ISA
