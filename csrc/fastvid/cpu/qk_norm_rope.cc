#include "fastvid/cpu/qk_norm_rope.h"

#include "fastvid/cpu/floats.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// Squares are summed in two rows of sixteen partial sums, so that additions do not wait for each
// other; a head's odd vectors go to the second row.
struct Squares {
  Floats even = splat(0.0f), odd = splat(0.0f);

  template <class T>
  FASTVID_INLINE void add(const T* x, int64_t dim) {
    int64_t i = 0;
    for (; i + 2 * kFloats <= dim; i += 2 * kFloats) {
      const Floats a = load(x + i), b = load(x + i + kFloats);
      even = even + a * a;
      odd = odd + b * b;
    }
    for (; i < dim; i += kFloats) {
      const Floats a = load_first(x + i, dim - i);
      even = even + a * a;
    }
  }
  FASTVID_INLINE float gain(int64_t count, float eps) const {
    const float mean = reduce_add(even + odd) / static_cast<float>(count);
    return 1.0f / __builtin_sqrtf(mean + eps);
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

// What the sums of the next token will read comes while this one is being rotated.
template <class T>
FASTVID_INLINE void prefetch(const T* next, int64_t dim) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < dim; i += kLine) __builtin_prefetch(next + i);
}

template <class T>
struct Head {
  const T* x;
  T* out;
  const float *weight, *cos, *sin;
  Floats gain;
  int64_t dim;
  bool stream;

  FASTVID_INLINE void plain() const {
    for (int64_t i = 0; i < dim; i += kFloats) {
      put(out + i, normalised(x + i, at(i), gain, dim - i), dim - i, stream);
    }
  }
  // Pairs (2i, 2i + 1).
  FASTVID_INLINE void interleaved() const {
    for (int64_t i = 0; i < dim; i += kFloats) {
      const int64_t n = dim - i;
      const Floats u = normalised(x + i, at(i), gain, n);
      const Floats c = load_doubled(cos + i / 2, n / 2), s = load_doubled(sin + i / 2, n / 2);
      put(out + i, u * c + negate_even(swap_pairs(u) * s), n, stream);
    }
  }
  // Pairs (i, i + dim / 2).
  FASTVID_INLINE void half() const {
    const int64_t middle = dim / 2;
    for (int64_t i = 0; i < middle; i += kFloats) {
      const int64_t n = middle - i;
      const Floats a = normalised(x + i, at(i), gain, n);
      const Floats b = normalised(x + middle + i, at(middle + i), gain, n);
      const Floats c = n < kFloats ? load_first(cos + i, n) : load(cos + i);
      const Floats s = n < kFloats ? load_first(sin + i, n) : load(sin + i);
      put(out + i, a * c - b * s, n, stream);
      put(out + middle + i, b * c + a * s, n, stream);
    }
  }

 private:
  FASTVID_INLINE const float* at(int64_t i) const {
    return weight == nullptr ? nullptr : weight + i;
  }
};

template <class T, Rope kRope>
void tokens(const NormRope& shared, int64_t begin, int64_t end) {
  const NormRope a = shared;  // a copy nothing else can change, so that it stays in registers
  const auto* in = static_cast<const T*>(a.in);
  auto* out = static_cast<T*>(a.out);
  for (int64_t token = begin; token < end; ++token) {
    const int64_t b = token / a.tokens, t = token - b * a.tokens;
    const T* x = in + b * a.in_strides.batch + t * a.in_strides.token;
    Head<T> head{.x = x,
                 .out = out + b * a.out_strides.batch + t * a.out_strides.token,
                 .weight = a.weight,
                 .cos = a.cos + t * a.table_token,
                 .sin = a.sin + t * a.table_token,
                 .gain = splat(1.0f),
                 .dim = a.dim,
                 .stream = a.stream};
    if (a.norm == QkNorm::kFull) {
      Squares squares;
      for (int64_t h = 0; h < a.heads; ++h) squares.add(x + h * a.in_strides.head, a.dim);
      head.gain = splat(squares.gain(a.heads * a.dim, a.eps));
    }
    const T* next = token + 1 < end && t + 1 < a.tokens ? x + a.in_strides.token : x;
    for (int64_t h = 0; h < a.heads; ++h) {
      prefetch(next + h * a.in_strides.head, a.dim);
      if (a.norm == QkNorm::kHead) {
        Squares squares;
        squares.add(head.x, a.dim);
        head.gain = splat(squares.gain(a.dim, a.eps));
      }
      if constexpr (kRope == Rope::kNone) head.plain();
      if constexpr (kRope == Rope::kInterleaved) head.interleaved();
      if constexpr (kRope == Rope::kHalf) head.half();
      head.x += a.in_strides.head;
      head.out += a.out_strides.head;
      head.cos += a.table_head;
      head.sin += a.table_head;
      if (a.norm == QkNorm::kFull && a.weight != nullptr) head.weight += a.dim;
    }
  }
  if (a.stream) fence();
}

template <class T>
void run(const NormRope& x, int64_t begin, int64_t end) {
  switch (x.rope) {
    case Rope::kInterleaved:
      return tokens<T, Rope::kInterleaved>(x, begin, end);
    case Rope::kHalf:
      return tokens<T, Rope::kHalf>(x, begin, end);
    default:
      return tokens<T, Rope::kNone>(x, begin, end);
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
