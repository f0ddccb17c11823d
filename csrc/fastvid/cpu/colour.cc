#include "fastvid/cpu/colour.h"

#include "fastvid/cpu/rgb_pixels.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// Columns worked on at a time, so that what lies between two steps stays in the first-level cache.
template <class T>
constexpr int64_t kTile = 4096 / static_cast<int64_t>(sizeof(T));
constexpr int64_t kPad = 64;  // room before a buffer's first column, for its left neighbour

int64_t clamp_index(int64_t i, int64_t count) { return i < 0 ? 0 : i >= count ? count - 1 : i; }

template <class Sample>
const Sample* row_of(const ConstYuvPlanes& yuv, int plane, int64_t row) {
  const auto* base = static_cast<const unsigned char*>(yuv.data[plane]);
  return reinterpret_cast<const Sample*>(base + row * yuv.stride[plane]);
}
template <class Sample>
Sample* row_of(const YuvPlanes& yuv, int plane, int64_t row) {
  auto* base = static_cast<unsigned char*>(yuv.data[plane]);
  return reinterpret_cast<Sample*>(base + row * yuv.stride[plane]);
}

// A wide sample out of range counts as the largest, so that sixteen times it fits in 16 bits.
inline int16_t sample(uint8_t x) { return x; }
inline int16_t sample(uint16_t x) { return static_cast<int16_t>(x < 1023 ? x : 1023); }

// ---- YUV to RGB ----

// The two chroma rows that make the chroma of a luma row, and the nearer one's weight in quarters.
struct RowTaps {
  int64_t near, far;
  int near_weight;
};
RowTaps row_taps(const YuvLayout& layout, int64_t row) {
  if (layout.shift_y == 0) return {row, row, 4};
  const int64_t near = row >> 1, count = (layout.height + 1) >> 1;
  const bool odd = (row & 1) != 0;
  switch (layout.siting_y) {
    case Siting::kMiddle:
      return {near, clamp_index(odd ? near + 1 : near - 1, count), 3};
    case Siting::kEven:
      return {near, clamp_index(near + 1, count), odd ? 2 : 4};
    default:
      return {near, clamp_index(near - 1, count), odd ? 4 : 2};
  }
}

template <int kNear, class Sample>
void mix(const Sample* near, const Sample* far, int64_t n, int16_t middle, int16_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    out[i] = static_cast<int16_t>(sample(near[i]) * kNear + sample(far[i]) * (4 - kNear) - middle);
  }
}

// out[i] = four times the centred chroma of one luma row at chroma column first + i.
template <class Sample>
void mix_rows(const Sample* near, const Sample* far, int weight, int64_t n, int16_t middle,
              int16_t* out) {
  if (weight == 4) {
    mix<4>(near, near, n, middle, out);
  } else if (weight == 3) {
    mix<3>(near, far, n, middle, out);
  } else {
    mix<2>(near, far, n, middle, out);
  }
}

// out[x] = four times in at luma column x, for n chroma columns with neighbours in[-1] and in[n].
void widen(const int16_t* in, int64_t n, Siting siting, int16_t* out) {
  if (siting == Siting::kEven) {
    for (int64_t i = 0; i < n; ++i) {
      out[2 * i] = static_cast<int16_t>(4 * in[i]);
      out[2 * i + 1] = static_cast<int16_t>(2 * in[i] + 2 * in[i + 1]);
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      out[2 * i] = static_cast<int16_t>(3 * in[i] + in[i - 1]);
      out[2 * i + 1] = static_cast<int16_t>(3 * in[i] + in[i + 1]);
    }
  }
}

// out[i] = sixteen times the centred chroma of plane p at luma row `row`, column begin + i.
template <class Sample>
void chroma_tile(const YuvToRgb& op, int plane, int64_t row, int64_t begin, int64_t n,
                 int16_t* out) {
  const YuvLayout& layout = op.layout;
  const RowTaps taps = row_taps(layout, row);
  const auto* near = row_of<Sample>(op.yuv, plane, taps.near);
  const auto* far = row_of<Sample>(op.yuv, plane, taps.far);
  const auto middle = static_cast<int16_t>(4 << (layout.bit_depth - 1));
  if (layout.shift_x == 0) {
    mix_rows(near + begin, far + begin, taps.near_weight, n, middle, out);
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<int16_t>(4 * out[i]);
    return;
  }
  alignas(64) int16_t mixed[kPad + kTile<int16_t> / 2 + kPad];
  int16_t* tile = mixed + kPad;
  const int64_t columns = (layout.width + 1) >> 1, first = begin >> 1, count = (n + 1) >> 1;
  const int64_t left = first > 0 ? 1 : 0, right = first + count < columns ? 1 : 0;
  mix_rows(near + first - left, far + first - left, taps.near_weight, left + count + right, middle,
           tile - left);
  if (left == 0) tile[-1] = tile[0];
  if (right == 0) tile[count] = tile[count - 1];
  widen(tile, count, layout.siting_x, out);
}

struct Rgb {
  float r, g, b;
};
inline Rgb to_rgb(const YuvToRgb& op, float y, float u, float v) {
  const float luma = (y - op.y_offset) * op.y_scale;
  return {luma + op.v_to_r * v, luma + (op.u_to_g * u + op.v_to_g * v), luma + op.u_to_b * u};
}

inline int32_t to_byte(float x) { return clamp_int(round_to_int(x), 255); }

template <class Sample>
void bytes_tile(const YuvToRgb& shared, const Sample* y, const int16_t* u, const int16_t* v,
                int64_t n, uint8_t* rgb) {
  alignas(64) uint32_t pixels[kTile<int16_t>];
  const YuvToRgb op = shared;
  for (int64_t i = 0; i < n; ++i) {
    const Rgb x = to_rgb(op, sample(y[i]), u[i], v[i]);
    pixels[i] = pack_pixel(to_byte(x.r), to_byte(x.g), to_byte(x.b));
  }
  pack_rgb(pixels, n, rgb);
}

template <class Sample>
void wide_tile(const YuvToRgb& shared, const Sample* y, const int16_t* u, const int16_t* v,
               int64_t n, uint16_t* rgb) {
  const YuvToRgb op = shared;
  for (int64_t i = 0; i < n; ++i) {
    const Rgb x = to_rgb(op, sample(y[i]), u[i], v[i]);
    rgb[3 * i] = static_cast<uint16_t>(clamp_int(round_to_int(x.r), 65535));
    rgb[3 * i + 1] = static_cast<uint16_t>(clamp_int(round_to_int(x.g), 65535));
    rgb[3 * i + 2] = static_cast<uint16_t>(clamp_int(round_to_int(x.b), 65535));
  }
}

template <class Sample>
void planar_tile(const YuvToRgb& shared, const Sample* y, const int16_t* u, const int16_t* v,
                 int64_t n, float* __restrict r, float* __restrict g, float* __restrict b) {
  const YuvToRgb op = shared;
  for (int64_t i = 0; i < n; ++i) {
    const Rgb x = to_rgb(op, sample(y[i]), u[i], v[i]);
    r[i] = clamp_float(x.r, 1.0f);
    g[i] = clamp_float(x.g, 1.0f);
    b[i] = clamp_float(x.b, 1.0f);
  }
}

template <class Sample>
void to_rgb_rows(const YuvToRgb& op, int64_t begin, int64_t end) {
  alignas(64) int16_t u[kTile<int16_t>], v[kTile<int16_t>];
  const int64_t width = op.layout.width, plane = op.layout.height * width;
  for (int64_t row = begin; row < end; ++row) {
    const auto* luma = row_of<Sample>(op.yuv, 0, row);
    for (int64_t x = 0; x < width; x += kTile<int16_t>) {
      const int64_t n = width - x < kTile<int16_t> ? width - x : kTile<int16_t>;
      chroma_tile<Sample>(op, 1, row, x, n, u);
      chroma_tile<Sample>(op, 2, row, x, n, v);
      if (op.rgb != nullptr) {
        bytes_tile(op, luma + x, u, v, n, op.rgb + 3 * (row * width + x));
      } else if (op.wide_rgb != nullptr) {
        wide_tile(op, luma + x, u, v, n, op.wide_rgb + 3 * (row * width + x));
      } else {
        float* out = op.planar + row * width + x;
        planar_tile(op, luma + x, u, v, n, out, out + plane, out + 2 * plane);
      }
    }
  }
}

// ---- RGB to YUV ----

// One row of a tile: green, and red and blue less green. Chroma depends on the differences alone,
// so that it is exactly neutral for grey.
template <class T>
struct Tile {
  alignas(64) T green[kTile<T> + kPad], red[kTile<T> + kPad], blue[kTile<T> + kPad];
};

// Loads columns [begin, begin + n) of a row.
void load_tile(const RgbToYuv& op, int64_t row, int64_t begin, int64_t n, Tile<int16_t>& tile) {
  alignas(64) uint32_t pixels[kTile<int16_t> + kPad];
  unpack_rgb(op.rgb + 3 * (row * op.layout.width + begin), n, pixels);
  for (int64_t i = 0; i < n; ++i) {
    const int32_t green = green_of(pixels[i]);
    tile.green[i] = static_cast<int16_t>(green);
    tile.red[i] = static_cast<int16_t>(red_of(pixels[i]) - green);
    tile.blue[i] = static_cast<int16_t>(blue_of(pixels[i]) - green);
  }
}
void load_tile(const RgbToYuv& op, int64_t row, int64_t begin, int64_t n, Tile<float>& tile) {
  if (op.wide_rgb != nullptr) {
    // Sums of whole numbers below 2^24 are exact in float.
    const uint16_t* rgb = op.wide_rgb + 3 * (row * op.layout.width + begin);
    for (int64_t i = 0; i < n; ++i) {
      const int32_t green = rgb[3 * i + 1];
      tile.green[i] = static_cast<float>(green);
      tile.red[i] = static_cast<float>(rgb[3 * i] - green);
      tile.blue[i] = static_cast<float>(rgb[3 * i + 2] - green);
    }
    return;
  }
  const int64_t plane = op.layout.height * op.layout.width;
  const float* r = op.planar + row * op.layout.width + begin;
  const float *g = r + plane, *b = g + plane;
  for (int64_t i = 0; i < n; ++i) {
    const float green = clamp_float(g[i], 1.0f);
    tile.green[i] = green;
    tile.red[i] = clamp_float(r[i], 1.0f) - green;
    tile.blue[i] = clamp_float(b[i], 1.0f) - green;
  }
}

template <class Sample, class T>
void luma_tile(const RgbToYuv& op, const T* green, const T* red, const T* blue, int64_t n,
               Sample* out) {
  const float scale = op.y_scale, r = op.red_to_y, b = op.blue_to_y, offset = op.y_offset;
  const int32_t top = (1 << op.layout.bit_depth) - 1;
  for (int64_t i = 0; i < n; ++i) {
    const float y = scale * green[i] + (r * red[i] + b * blue[i]);
    out[i] = static_cast<Sample>(clamp_int(round_to_int(y + offset), top));
  }
}

template <class Sample, class T>
void chroma_tile(const RgbToYuv& op, const float (&weights)[2], const T* red, const T* blue,
                 int64_t n, Sample* out) {
  const float r = weights[0], b = weights[1], offset = op.chroma_offset;
  const int32_t top = (1 << op.layout.bit_depth) - 1;
  for (int64_t i = 0; i < n; ++i) {
    const float c = r * red[i] + b * blue[i];
    out[i] = static_cast<Sample>(clamp_int(round_to_int(c + offset), top));
  }
}

template <class T>
void add_row(const T* __restrict in, int64_t n, int weight, bool first, T* __restrict sum) {
  const auto w = static_cast<T>(weight);
  if (first) {
    for (int64_t i = 0; i < n; ++i) sum[i] = static_cast<T>(w * in[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) sum[i] = static_cast<T>(sum[i] + w * in[i]);
  }
}

// out[i] = four times the weighted mean of the columns around chroma column i; in[-1] and, where
// the row ends on an even column, the one after it must be there.
template <class T>
void narrow(const T* __restrict in, int64_t n, const YuvLayout& layout, T* __restrict out) {
  if (layout.shift_x == 0) {
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(4 * in[i]);
  } else if (layout.siting_x == Siting::kEven) {
    for (int64_t i = 0; i < n; ++i) {
      out[i] = static_cast<T>((in[2 * i - 1] + 2 * in[2 * i]) + in[2 * i + 1]);
    }
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(2 * in[2 * i] + 2 * in[2 * i + 1]);
  }
}

// The luma rows that make one chroma row, from `first` on, with weights in quarters.
struct Rows {
  int64_t first;
  int count;
  int weight[3];
};
Rows rows_of(const YuvLayout& layout, int64_t row) {
  if (layout.shift_y == 0) return {row, 1, {4}};
  switch (layout.siting_y) {
    case Siting::kEven:
      return {2 * row - 1, 3, {1, 2, 1}};
    case Siting::kMiddle:
      return {2 * row, 2, {2, 2}};
    default:
      return {2 * row, 3, {1, 2, 1}};
  }
}

template <class Sample, class T>
void to_yuv_tile(const RgbToYuv& op, int64_t row, int64_t begin, int64_t n) {
  const YuvLayout& layout = op.layout;
  const Rows rows = rows_of(layout, row);
  // One column to the left of the tile takes part in its chroma.
  const int64_t left = begin > 0 && layout.shift_x == 1 ? 1 : 0;
  Tile<T> tile, narrowed;
  alignas(64) T sums[2][kPad + kTile<T> + kPad];
  T *red = sums[0] + kPad, *blue = sums[1] + kPad;
  for (int k = 0; k < rows.count; ++k) {
    const int64_t luma_row = rows.first + k;
    load_tile(op, clamp_index(luma_row, layout.height), begin - left, n + left, tile);
    add_row(tile.red, n + left, rows.weight[k], k == 0, red - left);
    add_row(tile.blue, n + left, rows.weight[k], k == 0, blue - left);
    if (luma_row >> layout.shift_y == row && luma_row < layout.height) {
      luma_tile(op, tile.green + left, tile.red + left, tile.blue + left, n,
                row_of<Sample>(op.yuv, 0, luma_row) + begin);
    }
  }
  T* both[2] = {red, blue};
  for (T* sum : both) {
    if (left == 0) sum[-1] = sum[0];
    sum[n] = sum[n - 1];
  }
  const int64_t first = begin >> layout.shift_x, count = (n + layout.shift_x) >> layout.shift_x;
  narrow(red, count, layout, narrowed.red);
  narrow(blue, count, layout, narrowed.blue);
  chroma_tile(op, op.to_u, narrowed.red, narrowed.blue, count,
              row_of<Sample>(op.yuv, 1, row) + first);
  chroma_tile(op, op.to_v, narrowed.red, narrowed.blue, count,
              row_of<Sample>(op.yuv, 2, row) + first);
}

template <class Sample, class T>
void to_yuv_rows(const RgbToYuv& op, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t x = 0; x < op.layout.width; x += kTile<T>) {
      const int64_t left = op.layout.width - x;
      to_yuv_tile<Sample, T>(op, row, x, left < kTile<T> ? left : kTile<T>);
    }
  }
}

}  // namespace

void yuv_rows_to_rgb(const YuvToRgb& op, int64_t begin, int64_t end) {
  if (op.layout.wide) {
    to_rgb_rows<uint16_t>(op, begin, end);
  } else {
    to_rgb_rows<uint8_t>(op, begin, end);
  }
}

void rgb_rows_to_yuv(const RgbToYuv& op, int64_t begin, int64_t end) {
  if (op.rgb != nullptr && op.layout.wide) {
    to_yuv_rows<uint16_t, int16_t>(op, begin, end);
  } else if (op.rgb != nullptr) {
    to_yuv_rows<uint8_t, int16_t>(op, begin, end);
  } else if (op.layout.wide) {
    to_yuv_rows<uint16_t, float>(op, begin, end);
  } else {
    to_yuv_rows<uint8_t, float>(op, begin, end);
  }
}

}  // namespace fastvid::cpu::FASTVID_ISA
