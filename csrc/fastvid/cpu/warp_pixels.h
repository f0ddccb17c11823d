// Warps images whose channels are last: pixel by pixel, the channels in the lanes.
#pragma once

#include "fastvid/cpu/warp.h"
#include "fastvid/cpu/warp_sample.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// The four neighbours of a pixel and their weights.
template <class T>
struct Corners {
  const T* at[4];
  float wx, wy;
};

// `n` channels, at most as many as there are lanes.
template <class S, class T, bool kAll>
FASTVID_INLINE typename S::F mix(const Corners<T>& corners, int64_t c, [[maybe_unused]] int64_t n) {
  const auto corner = [&](int k) FASTVID_INLINE_LAMBDA {
    if constexpr (kAll) {
      return S::load(corners.at[k] + c);
    } else {
      return S::load_first(corners.at[k] + c, n);
    }
  };
  const auto wx = S::splat(corners.wx);
  return S::lerp(S::lerp(corner(0), corner(1), wx), S::lerp(corner(2), corner(3), wx),
                 S::splat(corners.wy));
}

template <class S, class T>
FASTVID_INLINE void warp_pixel(const Corners<T>& corners, int64_t channels, bool stream, T* out) {
  int64_t c = 0;
  for (; c + S::kLanes <= channels; c += S::kLanes) {
    const auto value = mix<S, T, true>(corners, c, S::kLanes);
    if constexpr (sizeof(T) == sizeof(float)) {
      if (stream) {
        S::stream(out + c, value);
        continue;
      }
    }
    S::store(out + c, value);
  }
  if constexpr (S::kMasks) {
    if (c < channels) {
      S::store_first(out + c, mix<S, T, false>(corners, c, channels - c), channels - c);
    }
  } else {
    for (; c < channels; ++c) Scalar::store(out + c, mix<Scalar, T, true>(corners, c, 1));
  }
}

// A pixel that reads outside the image; `taps` is that of its block.
template <class S, class T>
inline void warp_pixel_outside(const Taps<S>& taps, int i, const T* image, int64_t channels,
                               T* out) {
  for (int64_t c = 0; c < channels; ++c) {
    T corner[4];
    for (int k = 0; k < 4; ++k) {
      const int64_t at = taps.at[k][i];
      corner[k] = at >= 0 ? image[at * channels + c] : T{};
    }
    const Corners<T> corners{{corner, corner + 1, corner + 2, corner + 3}, taps.wx[i], taps.wy[i]};
    Scalar::store(out + c, mix<Scalar, T, true>(corners, 0, 1));
  }
}

template <class S, class T>
FASTVID_INLINE void warp_block(const Strip<S>& strip, const Warp& w, const T* image,
                               int64_t channels, bool stream, int b, T* out) {
  const int64_t right = w.width > 1 ? channels : 0;
  const int64_t down = w.height > 1 ? w.width * channels : 0;
  for (int i = 0; i < S::kLanes; ++i, out += channels) {
    const int64_t pixel = strip.base[b] + strip.row[b][i] * w.width + strip.column[b][i];
    const T* top = image + pixel * channels;
    __builtin_prefetch(top + 2 * down);
    const Corners<T> corners{
        {top, top + right, top + down, top + down + right}, strip.wx[b][i], strip.wy[b][i]};
    warp_pixel<S, T>(corners, channels, stream, out);
  }
}

// A strip that starts at pixel `start`.
template <class S, class T>
void warp_pixels(const Strip<S>& strip, const Warp& w, const WarpSource& source, int64_t start) {
  const auto* image = static_cast<const T*>(source.image);
  const int64_t channels = source.channels;
  for (int b = 0; b < strip.blocks(); ++b) {
    T* out = static_cast<T*>(source.out) + (start + strip.offset(b)) * channels;
    if ((strip.kinds[kOutside] >> b & 1) == 0) {
      warp_block<S, T>(strip, w, image, channels, source.stream, b, out);
      continue;
    }
    Taps<S> taps;
    taps_outside(strip, b, w.height, w.width, &taps);
    for (int i = 0; i < S::kLanes; ++i) {
      warp_pixel_outside<S, T>(taps, i, image, channels, out + i * channels);
    }
  }
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
