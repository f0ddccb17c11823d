// Rows of a flow or mask that is stored at 1, 1/2, 1/4 or 1/8 of the image's resolution.
#pragma once

#include <cstdint>

namespace fastvid::cpu::FASTVID_ISA {
namespace {

constexpr int kMaxScale = 8;
// Pixels of a row that are worked on at once at most, so that they stay in the first cache.
constexpr int64_t kMaxStrip = 640;

// A part of a row.
struct StripPlace {
  int64_t y, x, count;
};

// Cuts the rows [begin, end) into strips of at most `longest` pixels and calls body(place) for
// each, strip below strip, so that the rows of the image it reads stay in the first cache. Strips
// are about equal and multiples of 16 pixels, so that little is computed twice where the last one
// overlaps the one before rather than being short.
template <class Body>
inline void for_strips(int64_t width, int64_t longest, int64_t begin, int64_t end, Body body) {
  const int64_t strips = (width + longest - 1) / longest;
  const int64_t even = ((width + strips - 1) / strips + 15) / 16 * 16;
  const int64_t count = even < width ? even : width;
  for (int64_t x = 0; x < width; x += count) {
    for (int64_t y = begin; y < end; ++y) {
      body(StripPlace{y, x + count > width ? width - count : x, count});
    }
  }
}

// Where row y of the image lies between the rows of a grid `scale` times coarser: pixel centres are
// at halves, rows beyond the edge repeat it.
struct RowPosition {
  int64_t above, below;
  float weight;
};

inline RowPosition row_position(int64_t y, int scale, int64_t rows) {
  const int64_t cell = y / scale, phase = y % scale;
  const float offset = (static_cast<float>(phase) + 0.5f) / static_cast<float>(scale);
  const int64_t above = offset < 0.5f ? cell - 1 : cell;
  const auto inside = [&](int64_t i) { return i < 0 ? 0 : i > rows - 1 ? rows - 1 : i; };
  return {inside(above), inside(above + 1), offset < 0.5f ? offset + 0.5f : offset - 0.5f};
}

// cells[0 .. count + 2) are the coarse values from one left of the first cell; writes
// count * kScale pixels.
template <int kScale>
inline void stretch(const float* cells, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    for (int p = 0; p < kScale; ++p) {
      const int right = p >= kScale / 2;
      const float offset = (static_cast<float>(p) + 0.5f) / kScale;
      const float weight = right ? offset - 0.5f : offset + 0.5f;
      const float a = cells[i + right], b = cells[i + right + 1];
      out[i * kScale + p] = a + weight * (b - a);
    }
  }
}

// A strip of one channel, at full resolution.
class FlowRow {
 public:
  // Returns the values at a place. `plane` is (rows, columns) at 1/scale.
  const float* read(const float* plane, int64_t rows, int64_t columns, int scale,
                    const StripPlace& place) {
    const auto [y, x, count] = place;
    if (scale == 1) return plane + y * columns + x;
    const RowPosition at = row_position(y, scale, rows);
    const float *above = plane + at.above * columns, *below = plane + at.below * columns;
    const int64_t first = x / scale, cells = (x + count - 1) / scale - first + 1;
    // One more on either side; beyond the edge the last one again.
    const int64_t begin = first > 0 ? first - 1 : 0;
    const int64_t end = first + cells < columns ? first + cells + 1 : columns;
    float* cell = cells_ + (begin - (first - 1));
    for (int64_t j = begin; j < end; ++j) {
      cell[j - begin] = above[j] + at.weight * (below[j] - above[j]);
    }
    if (first == 0) cells_[0] = cells_[1];
    if (first + cells == columns) cells_[cells + 1] = cells_[cells];
    if (scale == 2) {
      stretch<2>(cells_, cells, pixels_);
    } else if (scale == 4) {
      stretch<4>(cells_, cells, pixels_);
    } else {
      stretch<8>(cells_, cells, pixels_);
    }
    return pixels_ + (x - first * scale);
  }

 private:
  alignas(64) float cells_[kMaxStrip / 2 + 4];
  alignas(64) float pixels_[kMaxStrip + 2 * kMaxScale];
};

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
