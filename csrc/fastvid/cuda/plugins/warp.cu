#include "fastvid/cuda/plugins/entry.cuh"
#include "fastvid/cuda/warp.cuh"
#include "fastvid/cuda/warp_blend.cuh"

namespace fastvid::cuda {

// A level of a frame: TensorRT's plugins have no uint8.
struct Level {
  float value;
};
template <>
constexpr float kTopLevel<Level> = 255.0f;
__device__ inline void from_float(float v, Level* out) { out->value = rintf(v); }

extern "C" {

__constant__ int fastvid_zeros = 0;
__constant__ int fastvid_channels_last = 0;

}  // extern "C"

namespace {

struct Sizes {
  int count, channels, height, width, flow_height, flow_width;
};

// How many times smaller the flow is; its sizes have been checked where the graph was made.
__device__ __forceinline__ int scale_of(const Sizes& s) {
  for (int k = 1; k < 8; k *= 2) {
    if ((s.height + k - 1) / k == s.flow_height && (s.width + k - 1) / k == s.flow_width) return k;
  }
  return 8;
}

__device__ __forceinline__ Field field(const float* data, const Sizes& s) {
  return {data, s.flow_height, s.flow_width, scale_of(s)};
}

template <class T>
__device__ __forceinline__ void warp(const T* image, const float* flow, const Sizes& s, T* out) {
  const Images images{s.count, s.channels, s.height, s.width};
  const Field by = field(flow, s);
  const bool zeros = fastvid_zeros != 0;
  constexpr int kVector = 16 / sizeof(T);
  if (fastvid_channels_last != 0 && s.channels % kVector == 0) {
    warp_pixels<T, kVector, uint64_t>(image, images, by, zeros, out);
  } else if (fastvid_channels_last != 0) {
    warp_pixels<T, 1, uint64_t>(image, images, by, zeros, out);
  } else if (s.channels == 3) {
    warp_planes<T, 3, uint64_t>(image, images, by, zeros, out);
  } else {
    warp_planes<T, 0, uint64_t>(image, images, by, zeros, out);
  }
}

template <class T, class Out>
__device__ __forceinline__ void blend(const T* image0, const T* image1, const float* flow,
                                      const float* mask, const T* residual, const Sizes& s,
                                      Out* out) {
  const Blend<T> work{image0, image1, residual, s.count, s.height, s.width};
  warp_blend_pixel(work, field(flow, s), field(mask, s), out);
}

}  // namespace

#define FASTVID_BLEND_ENTRIES(T, Out, name)                                                      \
  __global__ void __launch_bounds__(kBlendThreads) fastvid_warp_blend_##name(                    \
      const T* image0, const T* image1, const float* flow, const float* mask, int count,         \
      int height, int width, int flow_height, int flow_width, Out* out) {                        \
    blend<T, Out>(image0, image1, flow, mask, nullptr,                                           \
                  {count, 3, height, width, flow_height, flow_width}, out);                      \
  }                                                                                              \
  __global__ void __launch_bounds__(kBlendThreads) fastvid_warp_blend_residual_##name(           \
      const T* image0, const T* image1, const float* flow, const float* mask, const T* residual, \
      int count, int height, int width, int flow_height, int flow_width, Out* out) {             \
    blend<T, Out>(image0, image1, flow, mask, residual,                                          \
                  {count, 3, height, width, flow_height, flow_width}, out);                      \
  }

#define FASTVID_ENTRIES(T, suffix)                                                            \
  __global__ void __launch_bounds__(kWarpThreads)                                             \
      fastvid_warp_##suffix(const T* image, const float* flow, int count, int channels,       \
                            int height, int width, int flow_height, int flow_width, T* out) { \
    warp(image, flow, {count, channels, height, width, flow_height, flow_width}, out);        \
  }                                                                                           \
  FASTVID_BLEND_ENTRIES(T, T, suffix)                                                         \
  FASTVID_BLEND_ENTRIES(T, Level, frames_##suffix)

extern "C" {

FASTVID_ENTRIES(float, f32)
FASTVID_ENTRIES(Half, f16)
FASTVID_ENTRIES(BFloat16, bf16)

}  // extern "C"

}  // namespace fastvid::cuda
