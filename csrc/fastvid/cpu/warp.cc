#include "fastvid/cpu/warp.h"

#include "fastvid/cpu/flow_rows.h"
#include "fastvid/cpu/warp_point.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// A pixel of one channel where a neighbour outside the image counts as 0.
float sample_zeros(const float* s, float x, float y, int64_t height, int64_t width) {
  const auto right = static_cast<float>(width), bottom = static_cast<float>(height);
  if (Scalar::all_inside(x, y, right - 1.0f, bottom - 1.0f)) {
    float inside;
    Scalar::sample<1>(s, 0, Scalar::plan(x, y, height, width), width, &inside);
    return inside;
  }
  if (!(x > -1.0f && x < right && y > -1.0f && y < bottom)) return 0.0f;
  const int64_t x0 = static_cast<int64_t>(x + 1.0f) - 1, y0 = static_cast<int64_t>(y + 1.0f) - 1;
  const float wx = x - static_cast<float>(x0), wy = y - static_cast<float>(y0);
  const auto at = [&](int64_t j, int64_t i) {
    return j >= 0 && j < height && i >= 0 && i < width ? s[j * width + i] : 0.0f;
  };
  const float a = at(y0, x0), b = at(y0, x0 + 1), c = at(y0 + 1, x0), d = at(y0 + 1, x0 + 1);
  const float above = a + wx * (b - a), below = c + wx * (d - c);
  return above + wy * (below - above);
}

template <class S>
void warp_block_zeros(const Warp& w, typename S::F x, typename S::F y, int64_t offset) {
  float xs[S::kLanes], ys[S::kLanes];
  S::store(xs, x);
  S::store(ys, y);
  const int64_t plane = w.height * w.width;
  for (int64_t c = 0; c < w.channels; ++c) {
    for (int i = 0; i < S::kLanes; ++i) {
      w.out[c * plane + offset + i] =
          sample_zeros(w.image + c * plane, xs[i], ys[i], w.height, w.width);
    }
  }
}

// C channels from `channel` on, of the block at `offset`.
template <class S, int C>
FASTVID_INLINE void warp_group(const Warp& w, const typename S::Plan& plan, int64_t channel,
                               int64_t offset) {
  const int64_t pixels = w.height * w.width;
  const float* source = w.image + channel * pixels;
  float* target = w.out + channel * pixels + offset;
  // All loads before any store: planes are often a multiple of 4096 bytes apart, and a load waits
  // for an earlier store whose address agrees in the low 12 bits.
  typename S::F out[C];
  if (w.stream) S::prefetch_source(source, pixels, C, plan, w.width);
  S::template sample<C>(source, pixels, plan, w.width, out);
  if (w.stream) {
    for (int c = 0; c < C; ++c) S::stream(target + c * pixels, out[c]);
  } else {
    for (int c = 0; c < C; ++c) S::store(target + c * pixels, out[c]);
  }
}

// Where a block reads, or false where it was computed here: with zero padding at the edges.
template <class S>
FASTVID_INLINE bool plan_block(const Warp& w, int64_t y, int64_t x, const float* u, const float* v,
                               typename S::Plan* plan) {
  if (w.stream) {
    __builtin_prefetch(u + w.flow_width);
    __builtin_prefetch(v + w.flow_width);
  }
  const auto px = displaced<S>(S::splat(static_cast<float>(x)) + S::iota(), u);
  const auto py = displaced<S>(S::splat(static_cast<float>(y)), v);
  if (w.zeros &&
      !S::all_inside(px, py, static_cast<float>(w.width - 1), static_cast<float>(w.height - 1))) {
    warp_block_zeros<S>(w, px, py, y * w.width + x);
    return false;
  }
  *plan = S::plan(to_edge<S>(px, w.width), to_edge<S>(py, w.height), w.height, w.width);
  return true;
}

// Columns [x, x + count) of row y for an image of C channels; u and v are the flow from column x
// on.
template <class S, int C>
void warp_tile(const Warp& w, int64_t y, int64_t x, int64_t count, const float* u, const float* v) {
  for (int64_t b = 0; b < count; b += S::kLanes) {
    // The last block of a row overlaps the one before; it computes the same again.
    const int64_t i = b + S::kLanes > count ? count - S::kLanes : b;
    typename S::Plan plan;
    if (plan_block<S>(w, y, x + i, u + i, v + i, &plan)) {
      warp_group<S, C>(w, plan, 0, y * w.width + x + i);
    }
  }
}

// The same for any number of channels: plans of a strip are kept while the channels pass by.
template <class S>
void warp_tile_deep(const Warp& w, int64_t y, int64_t x, int64_t count, const float* u,
                    const float* v) {
  constexpr int64_t kStrip = 16 * S::kLanes;
  typename S::Plan plans[16];
  int64_t offsets[16];
  for (int64_t strip = 0; strip < count; strip += kStrip) {
    int planned = 0;
    for (int64_t b = strip; b < count && b < strip + kStrip; b += S::kLanes) {
      const int64_t i = b + S::kLanes > count ? count - S::kLanes : b;
      offsets[planned] = y * w.width + x + i;
      if (plan_block<S>(w, y, x + i, u + i, v + i, &plans[planned])) ++planned;
    }
    int64_t c = 0;
    for (; c + 4 <= w.channels; c += 4) {
      for (int k = 0; k < planned; ++k) warp_group<S, 4>(w, plans[k], c, offsets[k]);
    }
    for (; c < w.channels; ++c) {
      for (int k = 0; k < planned; ++k) warp_group<S, 1>(w, plans[k], c, offsets[k]);
    }
  }
}

template <class S>
auto tile_function(int64_t channels) {
  switch (channels) {
    case 1:
      return &warp_tile<S, 1>;
    case 2:
      return &warp_tile<S, 2>;
    case 3:
      return &warp_tile<S, 3>;
    default:
      return &warp_tile_deep<S>;
  }
}

template <class S>
void rows(const Warp& w, int64_t begin, int64_t end) {
  TileRow u, v;
  const auto warp_columns = tile_function<S>(w.channels);
  const int64_t tile = tile_width(w.width, w.scale);
  const float* flow_y = w.flow + w.flow_height * w.flow_width;
  for (int64_t y = begin; y < end; ++y) {
    for (int64_t start = 0; start < w.width; start += tile) {
      // The last tile of a row overlaps the one before rather than being short.
      const int64_t x = start + tile > w.width ? w.width - tile : start;
      warp_columns(w, y, x, tile, u.read(w.flow, w.flow_height, w.flow_width, w.scale, y, x, tile),
                   v.read(flow_y, w.flow_height, w.flow_width, w.scale, y, x, tile));
    }
  }
  if (w.stream) S::fence();
}

}  // namespace

void warp_rows(const Warp& warp, int64_t begin, int64_t end) {
  if (Lanes::fits(warp.height, warp.width)) {
    rows<Lanes>(warp, begin, end);
  } else {
    rows<Scalar>(warp, begin, end);
  }
}

}  // namespace fastvid::cpu::FASTVID_ISA
