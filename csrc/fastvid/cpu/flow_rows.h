// Rows of a flow or mask that is stored at 1, 1/2, 1/4 or 1/8 of the image's resolution.
#pragma once

#include <cstdint>

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// Pixels of a row that are worked on at once, so that an upsampled row stays in the first cache.
constexpr int64_t kTile = 1024;
constexpr int kMaxScale = 8;

// Width of the tiles a row is cut into: the whole row where nothing is upsampled, else equal parts,
// so that little is computed twice where the last tile overlaps the one before.
inline int64_t tile_width(int64_t width, int scale) {
  if (scale == 1 || width <= kTile) return width;
  const int64_t tiles = (width + kTile - 1) / kTile;
  return ((width + tiles - 1) / tiles + 15) / 16 * 16;
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

// One tile of a row of one channel, at full resolution.
class TileRow {
 public:
  // Returns `count` values of row y from column x on. `plane` is (rows, columns) at 1/scale.
  const float* read(const float* plane, int64_t rows, int64_t columns, int scale, int64_t y,
                    int64_t x, int64_t count) {
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
  alignas(64) float cells_[kTile / 2 + 4];
  alignas(64) float pixels_[kTile + 2 * kMaxScale];
};

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
