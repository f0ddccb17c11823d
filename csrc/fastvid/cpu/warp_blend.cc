#include "fastvid/cpu/warp_blend.h"

#include "fastvid/cpu/exponential.h"
#include "fastvid/cpu/flow_rows.h"
#include "fastvid/cpu/warp_sample.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// What a strip is blended from and to; rows start at its first pixel.
template <class T>
struct Blend {
  const float* mask;
  const T* residual;  // or null
  T* planes;          // or null
  uint8_t* rgb;       // or null
  uint16_t* wide_rgb;
  int64_t plane, ahead;
  bool stream;
};

// Writes kLanes pixels of 16 bits a sample, channels in [0, 1].
template <class S>
FASTVID_INLINE void store_words(uint16_t* p, const typename S::F* rgb) {
  alignas(64) float levels[3][S::kLanes];
  for (int c = 0; c < 3; ++c) S::store(levels[c], rgb[c] * 65535.0f);
  for (int i = 0; i < S::kLanes; ++i) {
    for (int c = 0; c < 3; ++c) {
      p[3 * i + c] = static_cast<uint16_t>(__builtin_irintf(levels[c][i]));
    }
  }
}

// Writes kLanes pixels at column i.
template <class S, class T>
FASTVID_INLINE void blend_block(const Blend<T>& to, int64_t i, const float (&first)[3][S::kLanes],
                                const typename S::F* second) {
  using F = typename S::F;
  const F weight = 1.0f / (exponential<S>(-S::load(to.mask + i)) + 1.0f);
  __builtin_prefetch(to.mask + i + to.ahead);
  F out[3];
  for (int c = 0; c < 3; ++c) {
    F value = second[c] + weight * (S::load(first[c]) - second[c]);
    if (to.residual != nullptr) {
      const T* residual = to.residual + c * to.plane + i;
      __builtin_prefetch(residual + to.ahead);
      value = value + S::load(residual);
    }
    out[c] = S::min(S::max(value, S::splat(0.0f)), S::splat(1.0f));
  }
  if (to.rgb != nullptr) {
    S::store_rgb(to.rgb + 3 * i, out);
    return;
  }
  if (to.planes == nullptr) {
    store_words<S>(to.wide_rgb + 3 * i, out);
    return;
  }
  T* target = to.planes + i;
  if constexpr (sizeof(T) == sizeof(float)) {
    if (to.stream) {
      for (int c = 0; c < 3; ++c) S::stream(target + c * to.plane, out[c]);
      return;
    }
  }
  for (int c = 0; c < 3; ++c) S::store(target + c * to.plane, out[c]);
}

// Samples the first image of a strip, then the second, blending as it goes.
template <class S, class T>
void blend_strip(const Strip<S>& strip0, const Strip<S>& strip1, const Planes<T>& image0,
                 const Planes<T>& image1, const Blend<T>& to) {
  alignas(64) float first[kMaxBlocks][3][S::kLanes];
  sample_strip<S, T, 3>(strip0, image0,
                        [&](int b, const typename S::F* values) FASTVID_INLINE_LAMBDA {
                          for (int c = 0; c < 3; ++c) S::store(first[b][c], values[c]);
                        });
  sample_strip<S, T, 3>(strip1, image1,
                        [&](int b, const typename S::F* values) FASTVID_INLINE_LAMBDA {
                          blend_block<S, T>(to, strip1.offset(b), first[b], values);
                        });
}

template <class S, class T>
void rows_of(const WarpBlend& b, int64_t begin, int64_t end) {
  FlowRow rows[5];
  Strip<S> strip0, strip1;
  const int64_t plane = b.height * b.width, cells = b.flow_height * b.flow_width;
  const int64_t ahead = b.scale == 1 ? b.width : 0;
  const Planes<T> image0{static_cast<const T*>(b.image0), plane, b.height, b.width};
  const Planes<T> image1{static_cast<const T*>(b.image1), plane, b.height, b.width};
  for_strips(b.width, longest_strip<S>(), begin, end, [&](const StripPlace& at) {
    const float* row[5];
    for (int i = 0; i < 5; ++i) {
      const float* from = i < 4 ? b.flow + i * cells : b.mask;
      row[i] = rows[i].read(from, b.flow_height, b.flow_width, b.scale, at);
    }
    const Geometry g{b.height, b.width, at.y, at.x, at.count, ahead};
    plan_strip<S, false>(strip0, g, row[0], row[1]);
    plan_strip<S, false>(strip1, g, row[2], row[3]);
    const int64_t start = at.y * b.width + at.x;
    Blend<T> to{row[4], nullptr, nullptr, nullptr, nullptr, plane, ahead, b.stream};
    if (b.residual != nullptr) to.residual = static_cast<const T*>(b.residual) + start;
    if (b.rgb != nullptr) {
      to.rgb = b.rgb + 3 * start;
    } else if (b.wide_rgb != nullptr) {
      to.wide_rgb = b.wide_rgb + 3 * start;
    } else {
      to.planes = static_cast<T*>(b.planes) + start;
    }
    blend_strip<S, T>(strip0, strip1, image0, image1, to);
  });
  S::fence();
}

template <class S>
void rows_of(const WarpBlend& b, int64_t begin, int64_t end) {
  switch (b.dtype) {
    case DType::kFloat16:
      rows_of<S, Half>(b, begin, end);
      break;
    case DType::kBFloat16:
      rows_of<S, BFloat16>(b, begin, end);
      break;
    default:
      rows_of<S, float>(b, begin, end);
  }
}

}  // namespace

void warp_blend_rows(const WarpBlend& blend, int64_t begin, int64_t end) {
  if (window_fits(blend.height, blend.width)) {
    rows_of<Window>(blend, begin, end);
  } else {
    rows_of<Scalar>(blend, begin, end);
  }
}

}  // namespace fastvid::cpu::FASTVID_ISA
