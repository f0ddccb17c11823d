// Element types of device arrays, read and written as float32 in vectors of up to 16 bytes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace fastvid::cuda {

__device__ __forceinline__ float as_float(float v) { return v; }
__device__ __forceinline__ float as_float(__half v) { return __half2float(v); }
__device__ __forceinline__ float as_float(__nv_bfloat16 v) { return __bfloat162float(v); }

__device__ __forceinline__ void set(float* p, float v) { *p = v; }
__device__ __forceinline__ void set(__half* p, float v) { *p = __float2half_rn(v); }
__device__ __forceinline__ void set(__nv_bfloat16* p, float v) { *p = __float2bfloat16_rn(v); }

// kCount neighbours that one load or store moves: kCount * sizeof(T) is 2, 4, 8 or 16.
template <class T, int kCount>
struct alignas(kCount * sizeof(T)) Pack {
  T values[kCount];
};

// Aligned to the pack, or one by one.
template <int kCount, bool kAligned = true, class T>
__device__ __forceinline__ void read(const T* p, float* out) {
  if constexpr (kAligned) {
    const Pack<T, kCount> pack = *reinterpret_cast<const Pack<T, kCount>*>(p);
#pragma unroll
    for (int i = 0; i < kCount; ++i) out[i] = as_float(pack.values[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) out[i] = as_float(p[i]);
  }
}

template <int kCount, bool kAligned = true, class T>
__device__ __forceinline__ void write(T* p, const float* in) {
  if constexpr (kAligned) {
    Pack<T, kCount> pack;
#pragma unroll
    for (int i = 0; i < kCount; ++i) set(&pack.values[i], in[i]);
    *reinterpret_cast<Pack<T, kCount>*>(p) = pack;
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) set(p + i, in[i]);
  }
}

}  // namespace fastvid::cuda
