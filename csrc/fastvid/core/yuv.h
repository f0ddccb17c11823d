// Planar YUV pictures: what the colour ops agree on with their CPU and CUDA kernels.
#pragma once

#include <cstdint>

namespace fastvid {

enum class YuvMatrix { kBt601, kBt709, kBt2020 };

// Where a chroma sample lies among the luma samples it covers; ITU-T H.273's six types, in order.
enum class ChromaLocation { kLeft, kCenter, kTopLeft, kTop, kBottomLeft, kBottom };

// Position of a chroma sample along a halved axis: on the even luma sample, midway, on the odd one.
enum class Siting { kEven, kMiddle, kOdd };

struct YuvFormat {
  YuvMatrix matrix = YuvMatrix::kBt709;
  bool full_range = false;
  int bit_depth = 8;  // 8: uint8 samples; 10: uint16 samples from 0 to 1023
  // 1 where chroma has half the luma's columns or rows, rounded up: 4:2:0 is (1, 1), 4:2:2 (1, 0).
  int shift_x = 1, shift_y = 1;
  ChromaLocation location = ChromaLocation::kLeft;
};

// y, u, v. Row i of plane p starts stride[p] * i bytes after data[p].
struct YuvPlanes {
  void* data[3] = {};
  int64_t stride[3] = {};
};
struct ConstYuvPlanes {
  const void* data[3] = {};
  int64_t stride[3] = {};
};

// What a kernel needs of a YuvFormat.
struct YuvLayout {
  int64_t height = 0, width = 0;
  bool wide = false;  // samples are uint16
  int bit_depth = 8;
  int shift_x = 1, shift_y = 1;
  Siting siting_x = Siting::kEven, siting_y = Siting::kMiddle;
};

// One direction each. Exactly one of `rgb`, `wide_rgb` (height, width, 3) and `planar` (3, height,
// width) is set. Chroma coefficients apply to sixteen times the centred value, the exact integer
// result of resampling with weights in quarters along both axes.
struct YuvToRgb {
  ConstYuvPlanes yuv;
  YuvLayout layout;
  float y_offset, y_scale, v_to_r, u_to_g, v_to_g, u_to_b;
  uint8_t* rgb = nullptr;
  uint16_t* wide_rgb = nullptr;
  float* planar = nullptr;
};
struct RgbToYuv {
  const uint8_t* rgb = nullptr;
  const uint16_t* wide_rgb = nullptr;
  const float* planar = nullptr;
  YuvPlanes yuv;
  YuvLayout layout;
  // Of green, and of red and blue less green.
  float y_scale, red_to_y, blue_to_y, y_offset, to_u[2], to_v[2], chroma_offset;
};

}  // namespace fastvid
