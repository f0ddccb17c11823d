// `Floats` without vector instructions, and what its names mean everywhere.
#pragma once

#include <cstdint>

#include "fastvid/core/half.h"
#include "fastvid/core/isa.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

struct Floats {
  float v[16];
};

FASTVID_INLINE float to_float(float value) { return value; }
FASTVID_INLINE float to_float(Half value) { return half_to_float(value); }
FASTVID_INLINE float to_float(BFloat16 value) { return bfloat16_to_float(value); }
FASTVID_INLINE void from_float(float value, float* p) { *p = value; }
FASTVID_INLINE void from_float(float value, Half* p) { *p = float_to_half(value); }
FASTVID_INLINE void from_float(float value, BFloat16* p) { *p = float_to_bfloat16(value); }

template <class Fn>
FASTVID_INLINE Floats each(Fn fn) {
  Floats out;
  for (int i = 0; i < 16; ++i) out.v[i] = fn(i);
  return out;
}

FASTVID_INLINE Floats splat(float v) {
  return each([v](int) { return v; });
}

// Sixteen values at `p`; load_first reads only the first `n` and makes the others 0.
template <class T>
FASTVID_INLINE Floats load(const T* p) {
  return each([p](int i) { return to_float(p[i]); });
}
template <class T>
FASTVID_INLINE Floats load_first(const T* p, int64_t n) {
  return each([p, n](int i) { return i < n ? to_float(p[i]) : 0.0f; });
}

// Rounds half to even to a narrower type; store_first writes only the first `n`.
template <class T>
FASTVID_INLINE void store_first(T* p, const Floats& a, int64_t n) {
  for (int i = 0; i < 16; ++i) {
    if (i < n) from_float(a.v[i], p + i);
  }
}
template <class T>
FASTVID_INLINE void store(T* p, const Floats& a) {
  for (int i = 0; i < 16; ++i) from_float(a.v[i], p + i);
}

// Past the caches where there is a way; `p` lies at a multiple of the bytes written. A thread that
// used it ends with fence().
template <class T>
FASTVID_INLINE void store_past_caches(T* p, const Floats& a) {
  store(p, a);
}
FASTVID_INLINE void fence() {}

FASTVID_INLINE Floats operator+(const Floats& a, const Floats& b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
FASTVID_INLINE Floats operator-(const Floats& a, const Floats& b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
FASTVID_INLINE Floats operator*(const Floats& a, const Floats& b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
// a * b + c, rounded once.
FASTVID_INLINE Floats fma(const Floats& a, const Floats& b, const Floats& c) {
  return each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
// b where either is a NaN.
FASTVID_INLINE Floats max(const Floats& a, const Floats& b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
// To whole numbers, half to even, where |x| < 2^22.
FASTVID_INLINE Floats round(const Floats& a) {
  constexpr float kShift = 12582912.0f;
  return each([&](int i) { return (a.v[i] + kShift) - kShift; });
}
// p * 2^n, or 0 where x < -126; n is a whole number from -126 to 127 elsewhere.
FASTVID_INLINE Floats scale_by_power(const Floats& p, const Floats& n, const Floats& x) {
  return each([&](int i) {
    if (x.v[i] < -126.0f) return 0.0f;
    // A NaN must not be made an integer.
    const float whole = n.v[i] >= -126.0f && n.v[i] <= 127.0f ? n.v[i] : 0.0f;
    return p.v[i] * __builtin_bit_cast(float, (static_cast<int32_t>(whole) + 127) << 23);
  });
}
// The values at the first `n` places, `other` at the rest.
FASTVID_INLINE Floats keep_first(const Floats& a, int64_t n, float other) {
  return each([&](int i) { return i < n ? a.v[i] : other; });
}

// Halves are combined until one value is left.
FASTVID_INLINE float reduce_add(const Floats& a) {
  Floats t = a;
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) t.v[i] = t.v[i] + t.v[i + half];
  }
  return t.v[0];
}
FASTVID_INLINE float reduce_max(const Floats& a) {
  Floats t = a;
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) t.v[i] = t.v[i] > t.v[i + half] ? t.v[i] : t.v[i + half];
  }
  return t.v[0];
}

// Of 32 values: those at even and at odd places, in an order that depends on their type.
struct Pairs {
  Floats even, odd;
};

// 32 values at `p`, and back; with `stream` past the caches, as store_past_caches.
// load_for_pairs<T> puts sixteen values, one for each pair, into the order of load_pairs(const T*).
template <class T>
FASTVID_INLINE Floats load_for_pairs(const float* p) {
  return load(p);
}
template <class T>
FASTVID_INLINE Pairs load_pairs(const T* p) {
  return {each([p](int i) { return to_float(p[2 * i]); }),
          each([p](int i) { return to_float(p[2 * i + 1]); })};
}
// 32 float32 at `p` in the order of load_pairs(const T*).
template <class T>
FASTVID_INLINE Pairs load_pairs_like(const float* p) {
  return load_pairs(p);
}
template <class T>
FASTVID_INLINE void store_pairs(T* p, const Pairs& a, bool) {
  for (int i = 0; i < 16; ++i) {
    from_float(a.even.v[i], p + 2 * i);
    from_float(a.odd.v[i], p + 2 * i + 1);
  }
}

// A 16 x 16 matrix in rows becomes its columns.
FASTVID_INLINE void transpose(Floats* rows) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < i; ++j) {
      const float kept = rows[i].v[j];
      rows[i].v[j] = rows[j].v[i];
      rows[j].v[i] = kept;
    }
  }
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
