// Loads and stores of float32, float16, bfloat16 and uint8 as float32. Conversions round half to
// even, as core/half.h does.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "fastvid/core/half.h"

namespace fastvid::cuda {

__device__ inline float to_float(float v) { return v; }
__device__ inline float to_float(Half v) { return __half2float(__ushort_as_half(v.bits)); }
__device__ inline float to_float(BFloat16 v) {
  return __uint_as_float(static_cast<unsigned>(v.bits) << 16);
}

__device__ inline float to_float(uint8_t v) { return static_cast<float>(v); }

__device__ inline void from_float(float v, float* out) { *out = v; }
// Values in [0, 255].
__device__ inline void from_float(float v, uint8_t* out) {
  *out = static_cast<uint8_t>(__float2uint_rn(v));
}
// Values in [0, 65535].
__device__ inline void from_float(float v, uint16_t* out) {
  *out = static_cast<uint16_t>(__float2uint_rn(v));
}
__device__ inline void from_float(float v, Half* out) {
  out->bits = __half_as_ushort(__float2half_rn(v));
}
__device__ inline void from_float(float v, BFloat16* out) {
  out->bits = __bfloat16_as_ushort(__float2bfloat16_rn(v));
}

// Four neighbours at once; aligned to their size.
template <class T>
struct alignas(4 * sizeof(T)) Four {
  T v[4];
};

template <class T>
__device__ inline void load_four(const T* p, float* out) {
  const Four<T> four = *reinterpret_cast<const Four<T>*>(p);
#pragma unroll
  for (int j = 0; j < 4; ++j) out[j] = to_float(four.v[j]);
}

template <class T>
__device__ inline void store_four(T* p, const float* in) {
  Four<T> four;
#pragma unroll
  for (int j = 0; j < 4; ++j) from_float(in[j], &four.v[j]);
  *reinterpret_cast<Four<T>*>(p) = four;
}

}  // namespace fastvid::cuda
