#include "fastvid/cpu/warp_blend.h"

#include "fastvid/cpu/exponential.h"
#include "fastvid/cpu/flow_rows.h"
#include "fastvid/cpu/warp_point.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// One tile of the rows that decide where and how a row is blended.
struct Rows {
  const float* flow[4];
  const float* mask;
};

template <class S>
FASTVID_INLINE typename S::Plan plan_image(const WarpBlend& b, const float* image, typename S::F x,
                                           typename S::F y) {
  const auto plan = S::plan(to_edge<S>(x, b.width), to_edge<S>(y, b.height), b.height, b.width);
  if (b.large) S::prefetch_source(image, b.height * b.width, 3, plan, b.width);
  return plan;
}

// kLanes pixels at column x of row y; i is the same place in the tile.
template <class S>
FASTVID_INLINE void blend_block(const WarpBlend& b, const Rows& rows, int64_t y, int64_t x,
                                int64_t i) {
  using F = typename S::F;
  const int64_t plane = b.height * b.width, offset = y * b.width + x;
  const F column = S::splat(static_cast<float>(x)) + S::iota();
  const F row = S::splat(static_cast<float>(y));
  // Both plans first: the branch on the first then hides the making of the second.
  const auto plan0 = plan_image<S>(b, b.image0, displaced<S>(column, rows.flow[0] + i),
                                   displaced<S>(row, rows.flow[1] + i));
  const auto plan1 = plan_image<S>(b, b.image1, displaced<S>(column, rows.flow[2] + i),
                                   displaced<S>(row, rows.flow[3] + i));
  const F weight = 1.0f / (exponential<S>(-S::load(rows.mask + i)) + 1.0f);
  F first[3], second[3];
  S::template sample<3>(b.image0, plane, plan0, b.width, first);
  S::template sample<3>(b.image1, plane, plan1, b.width, second);
  for (int c = 0; c < 3; ++c) {
    F value = second[c] + weight * (first[c] - second[c]);
    if (b.residual != nullptr) value = value + S::load(b.residual + c * plane + offset);
    first[c] = S::min(S::max(value, S::splat(0.0f)), S::splat(1.0f));
  }
  if (b.rgb != nullptr) {
    S::store_rgb(b.rgb + 3 * offset, first);
  } else if (b.stream) {
    for (int c = 0; c < 3; ++c) S::stream(b.planes + c * plane + offset, first[c]);
  } else {
    for (int c = 0; c < 3; ++c) S::store(b.planes + c * plane + offset, first[c]);
  }
}

inline void fetch_next_row(const WarpBlend& b, const Rows& rows, int64_t offset, int64_t i) {
  if (b.scale == 1) {
    for (const float* flow : rows.flow) __builtin_prefetch(flow + i + b.width);
    __builtin_prefetch(rows.mask + i + b.width);
  }
  if (b.residual != nullptr) {
    const int64_t plane = b.height * b.width;
    for (int c = 0; c < 3; ++c) __builtin_prefetch(b.residual + c * plane + offset + b.width);
  }
}

template <class S>
void rows_of(const WarpBlend& b, int64_t begin, int64_t end) {
  TileRow flow[4], mask;
  const int64_t tile = tile_width(b.width, b.scale);
  const int64_t plane = b.flow_height * b.flow_width;
  const auto read = [&](TileRow& to, const float* from, int64_t y, int64_t x) {
    return to.read(from, b.flow_height, b.flow_width, b.scale, y, x, tile);
  };
  for (int64_t y = begin; y < end; ++y) {
    for (int64_t start = 0; start < b.width; start += tile) {
      const int64_t x = start + tile > b.width ? b.width - tile : start;
      Rows rows;
      for (int c = 0; c < 4; ++c) rows.flow[c] = read(flow[c], b.flow + c * plane, y, x);
      rows.mask = read(mask, b.mask, y, x);
      for (int64_t block = 0; block < tile; block += S::kLanes) {
        const int64_t i = block + S::kLanes > tile ? tile - S::kLanes : block;
        if (b.large) fetch_next_row(b, rows, y * b.width + x + i, i);
        blend_block<S>(b, rows, y, x + i, i);
      }
    }
  }
  if (b.stream) S::fence();
}

}  // namespace

void warp_blend_rows(const WarpBlend& blend, int64_t begin, int64_t end) {
  if (Lanes::fits(blend.height, blend.width)) {
    rows_of<Lanes>(blend, begin, end);
  } else {
    rows_of<Scalar>(blend, begin, end);
  }
}

}  // namespace fastvid::cpu::FASTVID_ISA
