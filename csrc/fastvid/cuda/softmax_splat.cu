#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/exponential.cuh"
#include "fastvid/cuda/half.cuh"
#include "fastvid/cuda/softmax_splat.h"
#include "fastvid/cuda/workspace.h"

namespace fastvid::cuda {
namespace {

constexpr const char* kOp = "softmax_splat";
constexpr int kThreads = 128;
// Blocks of a multiprocessor that must find room: for more, the compiler would spill registers.
constexpr int kResident = 8;
// Blocks of a reduction over an image: enough to fill a device. Rows of blocks of a grid.
constexpr int64_t kReduceBlocks = 1024, kMaxRows = 65535;
// The numbers of cpu/softmax_splat.cc.
constexpr float kHole = 1e-30f, kLowest = -80.0f, kScale = 18446744073709551616.0f;
constexpr unsigned kNan = 0x7fc00000u;

// What is found of an image before anything is splatted; all zero at first.
struct Found {
  unsigned peak;     // the largest finite metric, as `ordered`
  unsigned largest;  // bits of the largest finite magnitude of an image value
  unsigned unused[2];
};
static_assert(sizeof(Found) == 16, "what follows it in the workspace is aligned");

struct Splat {
  const float *flow, *metric;  // of one image
  int64_t channels, height, width;
  SplatMode mode;
  int64_t lanes;  // of the sums: the channels, and unless kSum the weight
  Found* found;

  __device__ __host__ int64_t plane() const { return height * width; }
  // The weight comes after the first three channels, or after all where there are fewer: groups of
  // four lanes are as on the CPU.
  __device__ __host__ int64_t weight_lane() const { return channels < 3 ? channels : 3; }
  // The channel of a lane, -1 for the weight.
  __device__ int64_t channel(int64_t lane) const {
    if (mode == SplatMode::kSum || lane < weight_lane()) return lane;
    return lane == weight_lane() ? -1 : lane - 1;
  }
};

// An unsigned number in the order of floats; 0 is below all finite ones.
__device__ unsigned ordered(float v) {
  const unsigned bits = __float_as_uint(v);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ float from_ordered(unsigned v) {
  return __uint_as_float(v & 0x80000000u ? v ^ 0x80000000u : ~v);
}
__device__ bool is_finite(float v) { return v - v == 0.0f; }

// Calls body(i) for those i in [0, count) that are this thread's.
template <class Body>
__device__ void for_own(int64_t count, Body&& body) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) body(i);
}

// The same for all pixels of the planes [0, planes): body(plane, pixel).
template <class Body>
__device__ void for_own_pixels(int64_t planes, int64_t pixels, Body&& body) {
  const int64_t pixel = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pixel >= pixels) return;
  for (int64_t plane = blockIdx.y; plane < planes; plane += gridDim.y) body(plane, pixel);
}

__device__ void reduce_max(unsigned value, unsigned* result) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) {
    value = max(value, __shfl_xor_sync(0xffffffffu, value, lane));
  }
  if (threadIdx.x % 32 == 0 && value != 0) atomicMax(result, value);
}

__global__ void __launch_bounds__(kThreads, kResident) peak_kernel(Splat s) {
  unsigned highest = 0;
  for_own(s.plane(), [&](int64_t i) {
    const float m = __ldg(s.metric + i);
    if (is_finite(m)) highest = max(highest, ordered(m));
  });
  reduce_max(highest, &s.found->peak);
}

template <class T>
__global__ void __launch_bounds__(kThreads, kResident)
    largest_kernel(Splat s, const T* __restrict__ image) {
  unsigned largest = 0;
  for_own(s.channels * s.plane(), [&](int64_t i) {
    const float v = to_float(image[i]);
    if (is_finite(v)) largest = max(largest, __float_as_uint(fabsf(v)));
  });
  reduce_max(largest, &s.found->largest);
}

// Where a pixel lands and with what weights; the order of the corners is left and right above,
// left and right below.
struct Landing {
  int64_t at;  // of the corner left above, may be outside
  bool left, right, above, below;
  float weight[4];

  // False where the pixel gives nothing.
  __device__ bool find(const Splat& s, int64_t pixel) {
    // Fewer than 2^31 pixels: the division of 32 bits is the cheaper one.
    const auto width = static_cast<uint32_t>(s.width), i = static_cast<uint32_t>(pixel);
    const uint32_t y = i / width, x = i - y * width;
    const float px = static_cast<float>(x) + __ldg(s.flow + pixel);
    const float py = static_cast<float>(y) + __ldg(s.flow + s.plane() + pixel);
    if (!(px > -1.0f && px < static_cast<float>(s.width) && py > -1.0f &&
          py < static_cast<float>(s.height))) {
      return false;
    }
    float w = 1.0f;
    if (s.metric != nullptr) {
      w = __ldg(s.metric + pixel);
      if (!is_finite(w)) return false;
      if (s.mode == SplatMode::kSoftmax) {
        w = exponential(fmaxf(w - from_ordered(s.found->peak), kLowest)) * kScale;
      }
    }
    const float x0 = floorf(px), y0 = floorf(py);
    const auto column = static_cast<int64_t>(x0), row = static_cast<int64_t>(y0);
    const float wx = px - x0, wy = py - y0;
    const float on_left = w * (1.0f - wx), on_right = w * wx;
    at = row * s.width + column;
    left = column >= 0;
    right = column + 1 < s.width;
    above = row >= 0;
    below = row + 1 < s.height;
    weight[0] = on_left * (1.0f - wy);
    weight[1] = on_right * (1.0f - wy);
    weight[2] = on_left * wy;
    weight[3] = on_right * wy;
    return true;
  }

  // Calls body(target pixel, weight) for the corners inside the image.
  template <class Body>
  __device__ void corners(int64_t width, Body&& body) const {
    if (above && left) body(at, weight[0]);
    if (above && right) body(at + 1, weight[1]);
    if (below && left) body(at + width, weight[2]);
    if (below && right) body(at + width + 1, weight[3]);
  }
};

__device__ void add_four(float* at, float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(at), "f"(a), "f"(b), "f"(c),
               "f"(d)
               : "memory");
#else
  atomicAdd(at, a);
  atomicAdd(at + 1, b);
  atomicAdd(at + 2, c);
  atomicAdd(at + 3, d);
#endif
}

// One thread per pixel and group of four lanes; sums are (groups, height, width, 4).
template <class T>
__global__ void __launch_bounds__(kThreads, kResident)
    splat_kernel(Splat s, const T* __restrict__ image, int64_t groups, float* sums) {
  for_own_pixels(groups, s.plane(), [&](int64_t group, int64_t pixel) {
    Landing landing;
    if (!landing.find(s, pixel)) return;
    float v[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int64_t lane = 4 * group + k, c = s.channel(lane);
      v[k] = lane >= s.lanes ? 0.0f : c < 0 ? 1.0f : to_float(image[c * s.plane() + pixel]);
    }
    float* base = sums + 4 * group * s.plane();
    landing.corners(s.width, [&](int64_t at, float w) {
      add_four(base + 4 * at, w * v[0], w * v[1], w * v[2], w * v[3]);
    });
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads, kResident)
    write_kernel(Splat s, const float4* __restrict__ sums, int64_t groups, T* __restrict__ out) {
  for_own_pixels(groups, s.plane(), [&](int64_t group, int64_t pixel) {
    const auto four = [&](int64_t g, float* to) {
      const float4 sum = sums[g * s.plane() + pixel];
      to[0] = sum.x, to[1] = sum.y, to[2] = sum.z, to[3] = sum.w;
    };
    float v[4], first[4], scale = 1.0f;
    four(group, v);
    if (s.mode != SplatMode::kSum) {
      four(0, first);
      const int64_t lane = s.weight_lane();
      const float w = lane == 3 ? first[3] : lane == 2 ? first[2] : first[1];
      scale = fabsf(w) > kHole ? 1.0f / w : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int64_t lane = 4 * group + k, c = s.channel(lane);
      if (lane < s.lanes && c >= 0) {
        from_float(s.mode == SplatMode::kSum ? v[k] : v[k] * scale, out + c * s.plane() + pixel);
      }
    }
  });
}

// The deterministic way. An addend w * v becomes an integer by the largest weight of its target
// and the largest value of the image, both as powers of two; integers add up alike in any order.
struct Exact {
  unsigned* heaviest;  // (height, width): bits of the largest |w|, kNan for what is not finite
  long long* sums;     // (lanes, height, width)
  int bits;            // of an addend, so that one from every pixel cannot overflow
};

// 2^exponent <= v, for v that is not negative; denormal ones count as the smallest normal.
__device__ int exponent_of(unsigned bits) {
  const int e = static_cast<int>(bits >> 23) - 127;
  return e < -126 ? -126 : e;
}

template <class T>
__global__ void __launch_bounds__(kThreads, kResident)
    heaviest_kernel(Splat s, const T* __restrict__ image, Exact exact) {
  for_own_pixels(1, s.plane(), [&](int64_t, int64_t pixel) {
    Landing landing;
    if (!landing.find(s, pixel)) return;
    bool finite = true;
    for (int64_t c = 0; c < s.channels; ++c) {
      finite = finite && is_finite(to_float(image[c * s.plane() + pixel]));
    }
    landing.corners(s.width, [&](int64_t at, float w) {
      atomicMax(exact.heaviest + at, finite ? __float_as_uint(fabsf(w)) : kNan);
    });
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads, kResident)
    splat_exact_kernel(Splat s, const T* __restrict__ image, Exact exact) {
  for_own_pixels(s.lanes, s.plane(), [&](int64_t lane, int64_t pixel) {
    const int64_t c = s.channel(lane);
    Landing landing;
    if (!landing.find(s, pixel)) return;
    const float v =
        c < 0 ? 1.0f
              : ldexpf(to_float(image[c * s.plane() + pixel]), -exponent_of(s.found->largest));
    auto* sums = reinterpret_cast<unsigned long long*>(exact.sums + lane * s.plane());
    landing.corners(s.width, [&](int64_t at, float w) {
      const unsigned heaviest = exact.heaviest[at];
      if (heaviest >= kNan) return;
      const float addend = ldexpf(w, exact.bits - exponent_of(heaviest)) * v;
      atomicAdd(sums + at, static_cast<unsigned long long>(__float2ll_rn(addend)));
    });
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads, kResident)
    write_exact_kernel(Splat s, Exact exact, T* __restrict__ out) {
  for_own_pixels(s.channels, s.plane(), [&](int64_t c, int64_t pixel) {
    const bool sum_only = s.mode == SplatMode::kSum;
    const int64_t lane = sum_only || c < s.weight_lane() ? c : c + 1;
    const unsigned heaviest = exact.heaviest[pixel];
    const int unit = exponent_of(heaviest) - exact.bits, largest = exponent_of(s.found->largest);
    const auto sum = [&](int64_t of) { return __ll2float_rn(exact.sums[of * s.plane() + pixel]); };
    float v = sum(lane);
    if (sum_only) {
      v = ldexpf(v, unit + largest);
    } else {
      const float w = sum(s.weight_lane());
      v = fabsf(ldexpf(w, unit)) > kHole ? ldexpf(v / w, largest) : 0.0f;
    }
    from_float(heaviest >= kNan ? __uint_as_float(kNan) : v, out + c * s.plane() + pixel);
  });
}

unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

unsigned reduction_blocks(int64_t elements) {
  return static_cast<unsigned>(std::min((elements + kThreads - 1) / kThreads, kReduceBlocks));
}

// One image; the workspace is all zero.
template <class T>
void splat_image(const Splat& s, const T* image, void* memory, bool deterministic, T* out,
                 cudaStream_t stream) {
  const int64_t plane = s.plane();
  const auto grid = [&](int64_t planes) {
    return dim3(blocks_for(plane), static_cast<unsigned>(std::min(planes, kMaxRows)));
  };
  if (s.mode == SplatMode::kSoftmax) {
    peak_kernel<<<reduction_blocks(plane), kThreads, 0, stream>>>(s);
  }
  if (!deterministic) {
    auto* sums = static_cast<float*>(memory);
    const int64_t groups = (s.lanes + 3) / 4;
    splat_kernel<<<grid(groups), kThreads, 0, stream>>>(s, image, groups, sums);
    write_kernel<<<grid(groups), kThreads, 0, stream>>>(s, reinterpret_cast<const float4*>(sums),
                                                        groups, out);
    return;
  }
  int doublings = 0;
  while ((int64_t{1} << doublings) < plane) ++doublings;
  auto* sums = static_cast<long long*>(memory);
  const Exact exact{reinterpret_cast<unsigned*>(sums + s.lanes * plane), sums, 60 - doublings};
  largest_kernel<<<reduction_blocks(s.channels * plane), kThreads, 0, stream>>>(s, image);
  heaviest_kernel<<<grid(1), kThreads, 0, stream>>>(s, image, exact);
  splat_exact_kernel<<<grid(s.lanes), kThreads, 0, stream>>>(s, image, exact);
  write_exact_kernel<<<grid(s.channels), kThreads, 0, stream>>>(s, exact, out);
}

template <class T>
void launch(const SoftmaxSplatArgs& args, const Tensor& out, int64_t bytes, cudaStream_t stream) {
  std::optional<Workspace> own;
  void* memory = args.workspace.data;
  if (memory == nullptr) {
    own.emplace(kOp, static_cast<size_t>(bytes), stream);
    memory = own->data();
  }
  const Tensor& image = args.image;
  Splat s{.flow = args.flow.as<const float>(),
          .metric = args.metric.as<const float>(),
          .channels = image.dim(1),
          .height = image.dim(2),
          .width = image.dim(3),
          .mode = args.mode,
          .lanes = image.dim(1) + (args.mode == SplatMode::kSum ? 0 : 1),
          .found = static_cast<Found*>(memory)};
  for (int64_t n = 0; n < image.dim(0); ++n) {
    (void)cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream);
    splat_image(s, image.as<const T>() + n * s.channels * s.plane(), s.found + 1,
                args.deterministic, out.as<T>() + n * s.channels * s.plane(), stream);
    s.flow += 2 * s.plane();
    if (s.metric != nullptr) s.metric += s.plane();
  }
  check_launch(kOp);
}

}  // namespace

void softmax_splat(const SoftmaxSplatArgs& args, const Tensor& out, int64_t bytes, void* opaque) {
  const DeviceGuard guard(kOp, {&args.image, &args.flow, &args.metric, &args.workspace, &out});
  if (out.shape.elements() == 0) return;
  const auto stream = static_cast<cudaStream_t>(opaque);
  if (out.dtype == DType::kFloat16) {
    launch<Half>(args, out, bytes, stream);
  } else if (out.dtype == DType::kBFloat16) {
    launch<BFloat16>(args, out, bytes, stream);
  } else {
    launch<float>(args, out, bytes, stream);
  }
}

}  // namespace fastvid::cuda
