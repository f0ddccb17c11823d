#include "fastvid/cpu/luma.h"

#include "fastvid/cpu/rgb_pixels.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// Columns worked on at a time, so that what lies between two steps stays in the first-level cache.
constexpr int64_t kTile = 512;
constexpr int64_t kPad = 16;  // room before a buffer's first column, for its left neighbour

int64_t clamp_index(int64_t i, int64_t count) { return i < 0 ? 0 : i >= count ? count - 1 : i; }

// Phases below the middle lie on the side of the preceding sample.
constexpr int64_t side(int phase, int scale) { return 2 * phase + 1 < scale ? -1 : 1; }

// out[i] = the chroma row under an output row, at chroma column begin + i, for i from -1 to n.
void mix_rows(const LumaToRgb& op, const float* plane, int64_t row, int64_t begin, int64_t n,
              float* out) {
  const int phase = static_cast<int>(row % op.scale);
  const int64_t near_row = row / op.scale;
  const int64_t far_row = clamp_index(near_row + side(phase, op.scale), op.height);
  const float *near = plane + near_row * op.width, *far = plane + far_row * op.width;
  const float step = op.step[phase];
  const int64_t first = begin > 0 ? -1 : 0, end = begin + n < op.width ? n + 1 : n;
  for (int64_t i = first; i < end; ++i) {
    const float a = near[begin + i], b = far[begin + i];
    out[i] = a + step * (b - a);
  }
  if (begin == 0) out[-1] = out[0];
  if (begin + n == op.width) out[n] = out[n - 1];
}

template <int kScale>
void widen(const LumaToRgb& op, const float* __restrict in, int64_t n, float* __restrict out) {
  for (int64_t i = 0; i < n; ++i) {
    for (int p = 0; p < kScale; ++p) {
      out[kScale * i + p] = in[i] + op.step[p] * (in[i + side(p, kScale)] - in[i]);
    }
  }
}

inline int32_t to_level(float x, float top) { return round_to_int(clamp_float(x, top)); }

void colour(const LumaWeights& shared, const float* luma, const float* cb, const float* cr,
            int64_t n, uint8_t* rgb) {
  alignas(64) uint32_t pixels[kTile];
  const LumaWeights w = shared;
  for (int64_t i = 0; i < n; ++i) {
    const float y = w.luma_scale * luma[i];
    const float g = y + (w.cb_to_green * cb[i] + w.cr_to_green * cr[i]);
    pixels[i] = pack_pixel(to_level(y + w.cr_to_red * cr[i], 255.0f), to_level(g, 255.0f),
                           to_level(y + w.cb_to_blue * cb[i], 255.0f));
  }
  pack_rgb(pixels, n, rgb);
}

void colour(const LumaWeights& shared, const float* luma, const float* cb, const float* cr,
            int64_t n, uint16_t* rgb) {
  const LumaWeights w = shared;
  for (int64_t i = 0; i < n; ++i) {
    const float y = w.luma_scale * luma[i];
    const float g = y + (w.cb_to_green * cb[i] + w.cr_to_green * cr[i]);
    rgb[3 * i] = static_cast<uint16_t>(to_level(y + w.cr_to_red * cr[i], 65535.0f));
    rgb[3 * i + 1] = static_cast<uint16_t>(to_level(g, 65535.0f));
    rgb[3 * i + 2] = static_cast<uint16_t>(to_level(y + w.cb_to_blue * cb[i], 65535.0f));
  }
}

template <int kScale>
void to_rgb_row(const LumaToRgb& op, int64_t row) {
  constexpr int64_t kColumns = kTile / kScale;
  alignas(64) float mixed[kPad + kTile + kPad], cb[kTile], cr[kTile];
  for (int64_t x = 0; x < op.width; x += kColumns) {
    const int64_t n = op.width - x < kColumns ? op.width - x : kColumns;
    mix_rows(op, op.cb, row, x, n, mixed + kPad);
    widen<kScale>(op, mixed + kPad, n, cb);
    mix_rows(op, op.cr, row, x, n, mixed + kPad);
    widen<kScale>(op, mixed + kPad, n, cr);
    const int64_t at = kScale * (row * op.width + x);
    if (op.rgb != nullptr) {
      colour(op.weights, op.luma + at, cb, cr, kScale * n, op.rgb + 3 * at);
    } else {
      colour(op.weights, op.luma + at, cb, cr, kScale * n, op.wide_rgb + 3 * at);
    }
  }
}

}  // namespace

namespace {

void wide_rgb_to_luma(const RgbToLuma& op, int64_t begin, int64_t end) {
  const LumaWeights w = op.weights;
  for (int64_t i = begin; i < end; ++i) {
    const int32_t level = op.wide_rgb[3 * i + 1];
    const auto green = static_cast<float>(level);
    const auto red = static_cast<float>(op.wide_rgb[3 * i] - level);
    const auto blue = static_cast<float>(op.wide_rgb[3 * i + 2] - level);
    op.luma[i] = w.green_to_luma * green + (w.red_to_luma * red + w.blue_to_luma * blue);
    op.cb[i] = w.half * blue + w.red_to_cb * red;
    op.cr[i] = w.half * red + w.blue_to_cr * blue;
  }
}

}  // namespace

void rgb_to_luma(const RgbToLuma& op, int64_t begin, int64_t end) {
  if (op.wide_rgb != nullptr) {
    wide_rgb_to_luma(op, begin, end);
    return;
  }
  alignas(64) uint32_t pixels[kTile];
  const LumaWeights w = op.weights;
  for (int64_t at = begin; at < end; at += kTile) {
    const int64_t n = end - at < kTile ? end - at : kTile;
    unpack_rgb(op.rgb + 3 * at, n, pixels);
    float* __restrict luma = op.luma + at;
    float* __restrict cb = op.cb + at;
    float* __restrict cr = op.cr + at;
    for (int64_t i = 0; i < n; ++i) {
      const int32_t green = green_of(pixels[i]);
      const auto red = static_cast<float>(red_of(pixels[i]) - green);
      const auto blue = static_cast<float>(blue_of(pixels[i]) - green);
      luma[i] = w.green_to_luma * static_cast<float>(green) +
                (w.red_to_luma * red + w.blue_to_luma * blue);
      cb[i] = w.half * blue + w.red_to_cb * red;
      cr[i] = w.half * red + w.blue_to_cr * blue;
    }
  }
}

void luma_rows_to_rgb(const LumaToRgb& op, int64_t begin, int64_t end) {
  void (*const rows[])(const LumaToRgb&, int64_t) = {to_rgb_row<1>, to_rgb_row<2>, to_rgb_row<3>,
                                                     to_rgb_row<4>};
  for (int64_t row = begin; row < end; ++row) rows[op.scale - 1](op, row);
}

}  // namespace fastvid::cpu::FASTVID_ISA
