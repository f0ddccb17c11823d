#include "fastvid/cuda/plugins/entry.cuh"
#include "fastvid/cuda/temporal_attention.cuh"

namespace fastvid::cuda {

extern "C" {

__constant__ int fastvid_causal = 0;
__constant__ float fastvid_scale = 0.0f;  // 0 for 1 / sqrt(dim)

}  // extern "C"

namespace {

constexpr float kLog2E = 1.44269504f;

struct Sizes {
  int batch, frames, places, heads, dim;
};
struct Bias {
  const float* data;
  int heads;  // 1 for all
};

template <class T>
__device__ __forceinline__ TemporalView<T> view_of(T* data, const Sizes& s) {
  const int64_t place = int64_t{s.heads} * s.dim, frame = s.places * place;
  return {data, s.frames * frame, frame, place, s.dim};
}

template <class T>
__device__ __forceinline__ TemporalProblem<T> problem(const T* q, const T* k, const T* v,
                                                      const Bias& bias, const Sizes& s, T* out) {
  const float scale =
      fastvid_scale == 0.0f ? 1.0f / sqrtf(static_cast<float>(s.dim)) : fastvid_scale;
  return {view_of(q, s),
          view_of(k, s),
          view_of(v, s),
          view_of(out, s),
          int64_t{s.batch} * s.places * s.heads,
          s.places,
          s.heads,
          s.frames,
          s.dim,
          scale * kLog2E,
          bias.data,
          bias.heads > 1 ? int64_t{s.frames} * s.frames : 0,
          fastvid_causal != 0,
          true};
}

}  // namespace

// One entry per dtype, greatest number of frames, and whether there is a bias.
#define FASTVID_ENTRIES(T, suffix, limit, kind, tiles)                                             \
  __global__ void __launch_bounds__(kTemporalThreads)                                              \
      fastvid_temporal_attention_##limit##_##suffix(const T* q, const T* k, const T* v, int batch, \
                                                    int frames, int places, int heads, int dim,    \
                                                    T* out) {                                      \
    temporal_attention_##kind##_block<T, tiles>(                                                   \
        problem<T>(q, k, v, {nullptr, 1}, {batch, frames, places, heads, dim}, out));              \
  }                                                                                                \
  __global__ void __launch_bounds__(kTemporalThreads)                                              \
      fastvid_temporal_attention_bias_##limit##_##suffix(                                          \
          const T* q, const T* k, const T* v, const float* bias, int batch, int frames,            \
          int places, int heads, int dim, int bias_heads, T* out) {                                \
    temporal_attention_##kind##_block<T, tiles>(                                                   \
        problem<T>(q, k, v, {bias, bias_heads}, {batch, frames, places, heads, dim}, out));        \
  }

extern "C" {

FASTVID_ENTRIES(float, f32, 16, plain, 16)
FASTVID_ENTRIES(float, f32, 32, plain, 32)
FASTVID_ENTRIES(float, f32, 64, plain, 64)
FASTVID_ENTRIES(Half, f16, 16, tiled, 2)
FASTVID_ENTRIES(Half, f16, 32, tiled, 4)
FASTVID_ENTRIES(Half, f16, 64, tiled, 8)
FASTVID_ENTRIES(BFloat16, bf16, 16, tiled, 2)
FASTVID_ENTRIES(BFloat16, bf16, 32, tiled, 4)
FASTVID_ENTRIES(BFloat16, bf16, 64, tiled, 8)

}  // extern "C"

}  // namespace fastvid::cuda
