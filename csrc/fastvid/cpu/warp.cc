#include "fastvid/cpu/warp.h"

#include "fastvid/cpu/flow_rows.h"
#include "fastvid/cpu/warp_pixels.h"
#include "fastvid/cpu/warp_sample.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// C channels from `channel` on, of a strip that starts at element `start` of a plane.
template <class S, class T, int C, bool kStream>
void warp_planes(const Strip<S>& strip, const Warp& w, const WarpSource& source, int64_t channel,
                 int64_t start) {
  const int64_t plane = w.height * w.width;
  const Planes<T> image{static_cast<const T*>(source.image) + channel * plane, plane, w.height,
                        w.width};
  T* out = static_cast<T*>(source.out) + channel * plane + start;
  sample_strip<S, T, C>(strip, image,
                        [&](int b, const typename S::F* values) FASTVID_INLINE_LAMBDA {
                          T* target = out + strip.offset(b);
                          for (int c = 0; c < C; ++c) {
                            if constexpr (kStream) {
                              S::stream(target + c * plane, values[c]);
                            } else {
                              S::store(target + c * plane, values[c]);
                            }
                          }
                        });
}

template <class S, class T, bool kStream>
void warp_all_planes(const Strip<S>& strip, const Warp& w, const WarpSource& source,
                     int64_t start) {
  int64_t c = 0;
  for (; c + 4 <= source.channels; c += 4) {
    warp_planes<S, T, 4, kStream>(strip, w, source, c, start);
  }
  switch (source.channels - c) {
    case 3:
      warp_planes<S, T, 3, kStream>(strip, w, source, c, start);
      return;
    case 2:
      warp_planes<S, T, 2, kStream>(strip, w, source, c, start);
      return;
    case 1:
      warp_planes<S, T, 1, kStream>(strip, w, source, c, start);
      return;
    default:
      return;
  }
}

template <class S, class T>
void warp_source(const Strip<S>& strip, const Warp& w, const WarpSource& source, int64_t start) {
  if (w.channels_last) {
    warp_pixels<S, T>(strip, w, source, start);
    return;
  }
  if constexpr (sizeof(T) == sizeof(float)) {
    if (source.stream) {
      warp_all_planes<S, T, true>(strip, w, source, start);
      return;
    }
  }
  warp_all_planes<S, T, false>(strip, w, source, start);
}

template <class S>
void warp_sources(const Strip<S>& strip, const Warp& w, int64_t start) {
  for (int i = 0; i < w.count; ++i) {
    const WarpSource& source = w.sources[i];
    switch (source.dtype) {
      case DType::kFloat16:
        warp_source<S, Half>(strip, w, source, start);
        break;
      case DType::kBFloat16:
        warp_source<S, BFloat16>(strip, w, source, start);
        break;
      case DType::kUint8:
        warp_source<S, uint8_t>(strip, w, source, start);
        break;
      default:
        warp_source<S, float>(strip, w, source, start);
    }
  }
}

template <class S, bool kZeros>
void rows(const Warp& w, int64_t begin, int64_t end) {
  FlowRow u, v;
  Strip<S> strip;
  const float* flow_y = w.flow + w.flow_height * w.flow_width;
  for_strips(w.width, longest_strip<S>(), begin, end, [&](const StripPlace& at) {
    const float* dx = u.read(w.flow, w.flow_height, w.flow_width, w.scale, at);
    const float* dy = v.read(flow_y, w.flow_height, w.flow_width, w.scale, at);
    const Geometry g{w.height, w.width, at.y, at.x, at.count, w.scale == 1 ? w.width : 0};
    plan_strip<S, kZeros>(strip, g, dx, dy);
    warp_sources<S>(strip, w, at.y * w.width + at.x);
  });
  S::fence();
}

template <class S>
void rows(const Warp& w, int64_t begin, int64_t end) {
  if (w.zeros) {
    rows<S, true>(w, begin, end);
  } else {
    rows<S, false>(w, begin, end);
  }
}

}  // namespace

void warp_rows(const Warp& warp, int64_t begin, int64_t end) {
  if (window_fits(warp.height, warp.width)) {
    rows<Window>(warp, begin, end);
  } else {
    rows<Scalar>(warp, begin, end);
  }
}

}  // namespace fastvid::cpu::FASTVID_ISA
