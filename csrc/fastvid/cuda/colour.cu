#include <cuda_runtime.h>

#include "fastvid/cuda/colour.h"
#include "fastvid/cuda/device.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreadsX = 32, kThreadsY = 8;

__device__ int64_t clamp_index(int64_t i, int64_t count) {
  return i < 0 ? 0 : i >= count ? count - 1 : i;
}

template <class Sample, class Planes>
__device__ auto* row_of(const Planes& yuv, int plane, int64_t row) {
  return static_cast<Sample*>(static_cast<void*>(
      const_cast<char*>(static_cast<const char*>(yuv.data[plane])) + row * yuv.stride[plane]));
}

template <class Sample>
__device__ int sample(Sample x) {
  return sizeof(Sample) == 1 || x < 1023 ? x : 1023;
}

// The two chroma samples that make the chroma at a luma position, the nearer's weight in quarters.
struct Taps {
  int64_t near, far;
  int weight;
};
__device__ Taps taps(int shift, Siting siting, int64_t at, int64_t size) {
  if (shift == 0) return {at, at, 4};
  const int64_t near = at >> 1, count = (size + 1) >> 1;
  const bool odd = (at & 1) != 0;
  switch (siting) {
    case Siting::kMiddle:
      return {near, clamp_index(odd ? near + 1 : near - 1, count), 3};
    case Siting::kEven:
      return {near, clamp_index(near + 1, count), odd ? 2 : 4};
    default:
      return {near, clamp_index(near - 1, count), odd ? 4 : 2};
  }
}

// Sixteen times the centred chroma.
template <class Sample>
__device__ float chroma(const YuvToRgb& op, int plane, const Taps& x, const Taps& y) {
  const auto* near = row_of<Sample>(op.yuv, plane, y.near);
  const auto* far = row_of<Sample>(op.yuv, plane, y.far);
  const int at_near = sample(near[x.near]) * y.weight + sample(far[x.near]) * (4 - y.weight);
  const int at_far = sample(near[x.far]) * y.weight + sample(far[x.far]) * (4 - y.weight);
  const int sum = at_near * x.weight + at_far * (4 - x.weight);
  return static_cast<float>(sum - (16 << (op.layout.bit_depth - 1)));
}

template <class T>
__device__ T to_level(float x) {
  return static_cast<T>(min(max(__float2int_rn(x), 0), sizeof(T) == 1 ? 255 : 65535));
}

template <class T>
__device__ void store_pixel(T* rgb, float r, float g, float b) {
  rgb[0] = to_level<T>(r);
  rgb[1] = to_level<T>(g);
  rgb[2] = to_level<T>(b);
}

template <class Sample>
__global__ void __launch_bounds__(kThreadsX* kThreadsY) to_rgb_kernel(YuvToRgb op) {
  const YuvLayout& layout = op.layout;
  const int64_t x = int64_t{blockIdx.x} * kThreadsX + threadIdx.x;
  if (x >= layout.width) return;
  const Taps across = taps(layout.shift_x, layout.siting_x, x, layout.width);
  for (int64_t row = int64_t{blockIdx.y} * kThreadsY + threadIdx.y; row < layout.height;
       row += int64_t{gridDim.y} * kThreadsY) {
    const Taps down = taps(layout.shift_y, layout.siting_y, row, layout.height);
    const float u = chroma<Sample>(op, 1, across, down), v = chroma<Sample>(op, 2, across, down);
    const int y = sample(row_of<Sample>(op.yuv, 0, row)[x]);
    const float luma = (static_cast<float>(y) - op.y_offset) * op.y_scale;
    const float r = luma + op.v_to_r * v, b = luma + op.u_to_b * u;
    const float g = luma + (op.u_to_g * u + op.v_to_g * v);
    const int64_t at = row * layout.width + x, plane = layout.height * layout.width;
    if (op.rgb != nullptr) {
      store_pixel(op.rgb + 3 * at, r, g, b);
    } else if (op.wide_rgb != nullptr) {
      store_pixel(op.wide_rgb + 3 * at, r, g, b);
    } else {
      op.planar[at] = __saturatef(r);
      op.planar[at + plane] = __saturatef(g);
      op.planar[at + 2 * plane] = __saturatef(b);
    }
  }
}

// Red and blue less green.
struct Pixel {
  float green, red, blue;
};
template <class T>
__device__ Pixel pixel_of(const T* rgb) {
  const float g = rgb[1];
  return {g, rgb[0] - g, rgb[2] - g};
}
__device__ Pixel pixel(const RgbToYuv& op, int64_t row, int64_t column) {
  const int64_t y = clamp_index(row, op.layout.height), x = clamp_index(column, op.layout.width);
  const int64_t at = y * op.layout.width + x, plane = op.layout.height * op.layout.width;
  if (op.rgb != nullptr) return pixel_of(op.rgb + 3 * at);
  if (op.wide_rgb != nullptr) return pixel_of(op.wide_rgb + 3 * at);
  const float g = __saturatef(op.planar[at + plane]);
  return {g, __saturatef(op.planar[at]) - g, __saturatef(op.planar[at + 2 * plane]) - g};
}

// The luma positions that make one chroma sample, from `first` on, with weights in quarters.
struct Window {
  int64_t first;
  int count, weight[3];
};
__device__ Window window(int shift, Siting siting, int64_t at) {
  if (shift == 0) return {at, 1, {4, 0, 0}};
  if (siting == Siting::kMiddle) return {2 * at, 2, {2, 2, 0}};
  return {siting == Siting::kEven ? 2 * at - 1 : 2 * at, 3, {1, 2, 1}};
}

template <class Sample>
__device__ Sample quantise(float x, int bit_depth) {
  return static_cast<Sample>(min(max(__float2int_rn(x), 0), (1 << bit_depth) - 1));
}

// One chroma sample and the luma samples it covers. The sums run down each column first, as the
// CPU's do.
template <class Sample>
__device__ void to_yuv(const RgbToYuv& op, int64_t column, int64_t row) {
  const YuvLayout& layout = op.layout;
  const Window down = window(layout.shift_y, layout.siting_y, row);
  const Window across = window(layout.shift_x, layout.siting_x, column);
  float red = 0.0f, blue = 0.0f;
  for (int i = 0; i < across.count; ++i) {
    const int64_t x = across.first + i;
    float column_red = 0.0f, column_blue = 0.0f;
    for (int k = 0; k < down.count; ++k) {
      const int64_t y = down.first + k;
      const Pixel p = pixel(op, y, x);
      column_red += down.weight[k] * p.red;
      column_blue += down.weight[k] * p.blue;
      if (x >> layout.shift_x == column && x < layout.width && y >> layout.shift_y == row &&
          y < layout.height) {
        const float luma =
            op.y_scale * p.green + (op.red_to_y * p.red + op.blue_to_y * p.blue) + op.y_offset;
        row_of<Sample>(op.yuv, 0, y)[x] = quantise<Sample>(luma, layout.bit_depth);
      }
    }
    red += across.weight[i] * column_red;
    blue += across.weight[i] * column_blue;
  }
  const float u = op.to_u[0] * red + op.to_u[1] * blue, v = op.to_v[0] * red + op.to_v[1] * blue;
  row_of<Sample>(op.yuv, 1, row)[column] = quantise<Sample>(u + op.chroma_offset, layout.bit_depth);
  row_of<Sample>(op.yuv, 2, row)[column] = quantise<Sample>(v + op.chroma_offset, layout.bit_depth);
}

template <class Sample>
__global__ void __launch_bounds__(kThreadsX* kThreadsY) to_yuv_kernel(RgbToYuv op) {
  const YuvLayout& layout = op.layout;
  const int64_t columns = (layout.width + layout.shift_x) >> layout.shift_x;
  const int64_t rows = (layout.height + layout.shift_y) >> layout.shift_y;
  const int64_t column = int64_t{blockIdx.x} * kThreadsX + threadIdx.x;
  if (column >= columns) return;
  for (int64_t row = int64_t{blockIdx.y} * kThreadsY + threadIdx.y; row < rows;
       row += int64_t{gridDim.y} * kThreadsY) {
    to_yuv<Sample>(op, column, row);
  }
}

dim3 grid_of(int64_t width, int64_t height) {
  const int64_t y = (height + kThreadsY - 1) / kThreadsY;
  return dim3(static_cast<unsigned>((width + kThreadsX - 1) / kThreadsX),
              static_cast<unsigned>(y < 65535 ? y : 65535));
}

}  // namespace

void yuv_to_rgb(const YuvToRgb& op, const YuvTensors& yuv, const Tensor& out, void* stream) {
  const DeviceGuard guard("yuv_to_rgb", {&yuv.y, &yuv.u, &yuv.v, &out});
  const auto kernel = op.layout.wide ? to_rgb_kernel<uint16_t> : to_rgb_kernel<uint8_t>;
  kernel<<<grid_of(op.layout.width, op.layout.height), dim3(kThreadsX, kThreadsY), 0,
           static_cast<cudaStream_t>(stream)>>>(op);
  check_launch("yuv_to_rgb");
}

void rgb_to_yuv(const RgbToYuv& op, const Tensor& rgb, const YuvTensors& out, void* stream) {
  const DeviceGuard guard("rgb_to_yuv", {&rgb, &out.y, &out.u, &out.v});
  const auto kernel = op.layout.wide ? to_yuv_kernel<uint16_t> : to_yuv_kernel<uint8_t>;
  kernel<<<grid_of(out.u.dim(1), out.u.dim(0)), dim3(kThreadsX, kThreadsY), 0,
           static_cast<cudaStream_t>(stream)>>>(op);
  check_launch("rgb_to_yuv");
}

}  // namespace fastvid::cuda
