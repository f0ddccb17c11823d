// What luma_to_rgb and rgb_to_luma agree on with their CPU and CUDA kernels.
#pragma once

#include <cstdint>

namespace fastvid {

// BT.601. The first four take red and blue less green, in bytes.
struct LumaWeights {
  float green_to_luma = static_cast<float>(1.0 / 255.0);
  float red_to_luma = static_cast<float>(0.299 / 255.0);
  float blue_to_luma = static_cast<float>(0.114 / 255.0);
  float half = static_cast<float>(0.5 / 255.0);
  float red_to_cb = static_cast<float>(-0.299 / 1.772 / 255.0);
  float blue_to_cr = static_cast<float>(-0.114 / 1.402 / 255.0);
  // To bytes.
  float luma_scale = 255.0f;
  float cr_to_red = static_cast<float>(255.0 * 1.402);
  float cb_to_green = static_cast<float>(-255.0 * 1.772 * 0.114 / 0.587);
  float cr_to_green = static_cast<float>(-255.0 * 1.402 * 0.299 / 0.587);
  float cb_to_blue = static_cast<float>(255.0 * 1.772);
};

// For levels of which `top` stands for 1.
inline LumaWeights luma_weights(double top) {
  LumaWeights w;
  w.green_to_luma = static_cast<float>(1.0 / top);
  w.red_to_luma = static_cast<float>(0.299 / top);
  w.blue_to_luma = static_cast<float>(0.114 / top);
  w.half = static_cast<float>(0.5 / top);
  w.red_to_cb = static_cast<float>(-0.299 / 1.772 / top);
  w.blue_to_cr = static_cast<float>(-0.114 / 1.402 / top);
  w.luma_scale = static_cast<float>(top);
  w.cr_to_red = static_cast<float>(top * 1.402);
  w.cb_to_green = static_cast<float>(-top * 1.772 * 0.114 / 0.587);
  w.cr_to_green = static_cast<float>(-top * 1.402 * 0.299 / 0.587);
  w.cb_to_blue = static_cast<float>(top * 1.772);
  return w;
}

// One image of the batch. Of `rgb` and `wide_rgb` one is set.
struct RgbToLuma {
  const uint8_t* rgb;
  float *luma, *cb, *cr;
  LumaWeights weights;
  const uint16_t* wide_rgb = nullptr;
};
struct LumaToRgb {
  const float *luma, *cb, *cr;
  uint8_t* rgb;
  int64_t height, width;  // of the chroma
  int scale;
  // Between a chroma sample and the neighbour on the side of phase p: how far towards the latter.
  float step[4];
  LumaWeights weights;
  uint16_t* wide_rgb = nullptr;
};

}  // namespace fastvid
