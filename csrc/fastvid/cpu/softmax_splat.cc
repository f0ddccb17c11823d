#include "fastvid/cpu/softmax_splat.h"

#include <cstddef>

#include "fastvid/core/half.h"
#include "fastvid/cpu/exponential.h"
#include "fastvid/cpu/splat_vectors.h"

// Target rows are computed in bands. A band walks the source rows that reach it and adds each pixel
// to sums of eight floats: for the column left of where it lands and for the one right of it, four
// channels for the row above and four for the row below. Sums of one size at multiples of it: what
// was just stored can be loaded again without waiting for the cache. Every sum sees its addends in
// the order of the source, whatever the bands, so bands may run anywhere.

namespace fastvid::cpu::FASTVID_ISA {
namespace {

constexpr int kSegment = Splat::kSegment;
static_assert(kSegment == 64, "a bit of a word for each pixel");
// Sums of weights up to this are holes.
constexpr float kHole = 1e-30f;
// Softmax weights are 2^64 e^max(metric - peak, -80): none underflows.
constexpr float kLowest = -80.0f, kScale = 18446744073709551616.0f;

template <class T>
struct alignas(64) Row {
  T at[kSegment];
};

// The segment of n pixels from p on, or a copy of it with `filler` behind.
template <class T>
FASTVID_INLINE const T* padded(const T* p, int n, T filler, Row<T>& row) {
  if (n == kSegment) return p;
  for (int i = 0; i < kSegment; ++i) row.at[i] = i < n ? p[i] : filler;
  return row.at;
}
FASTVID_INLINE const float* padded(const float* p, int n, Row<float>& row) {
  return padded(p, n, __builtin_nanf(""), row);
}

FASTVID_INLINE int segment_size(int64_t width, int64_t x) {
  return static_cast<int>(width - x < kSegment ? width - x : kSegment);
}

// Where the pixels of a segment land in a band, and with what weights.
struct Landing {
  alignas(64) float weights[4 * kSegment];  // by slot: left above, below, right above, below
  alignas(64) float values[4 * kSegment];   // by slot
  alignas(64) uint32_t place[kSegment];     // of the left column's sums
  uint64_t inside;                          // a bit for every pixel that lands in the band
};

struct Band {
  int64_t begin, end;  // target rows
  float* sums;         // (groups, end - begin + 1, stride), from the row above and column -1 on
  int64_t stride;

  int64_t size() const { return (end - begin + 1) * stride; }  // of one group
};

// Anything for a metric that is not finite.
template <int kWeights>
FASTVID_INLINE Wide weights_of(const Wide& metric, float peak) {
  if constexpr (kWeights != Splat::kSoftmax) return metric;
  return exponential<WideLanes>(WideLanes::max(metric - peak, spread(kLowest))) * kScale;
}

// The n pixels from column x of source row y on.
template <int kWeights>
void land(const Splat& s, const Band& band, int64_t y, int64_t x, int n, Landing& l) {
  Row<float> rows[3];
  const float* u = padded(s.flow + y * s.width + x, n, rows[0]);
  const float* v = padded(s.flow + (s.height + y) * s.width + x, n, rows[1]);
  const float* metric =
      kWeights == Splat::kOnes ? nullptr : padded(s.metric + y * s.width + x, n, rows[2]);
  const auto row = static_cast<float>(y), right = static_cast<float>(s.width);
  // What lands less than a row above the band reaches it.
  const auto top = static_cast<float>(band.begin - 1), bottom = static_cast<float>(band.end);
  const auto above = static_cast<uint32_t>(band.begin - 1);
  const auto stride = static_cast<uint32_t>(band.stride);
  Wide column;
  for (int i = 0; i < kWide; ++i) column[i] = static_cast<float>(x + i);
  l.inside = 0;
  for (int i = 0; i < kSegment; i += kWide) {
    const Wide px = column + load<Wide>(u + i), py = row + load<Wide>(v + i);
    WideInts inside = (px > -1.0f) & (px < right) & (py > -1.0f) & (py >= top) & (py < bottom);
    Wide weight = spread(1.0f);
    if constexpr (kWeights != Splat::kOnes) {
      const Wide m = load<Wide>(metric + i);
      inside &= is_finite(m);
      weight = weights_of<kWeights>(m, s.peak);
    }
    // What is not inside gets places and weights that mean nothing, and is never added.
    const WideInts x0 = floor_of(px), y0 = floor_of(py);
    const Wide wx = px - to_wide(x0), wy = py - to_wide(y0);
    const Wide on_left = weight * (1.0f - wx), on_right = weight * wx;
    Wide w[4] = {on_left * (1.0f - wy), on_left * wy, on_right * (1.0f - wy), on_right * wy};
    transpose(w);
    for (int k = 0; k < 4; ++k) store(l.weights + 4 * i + k * kWide, w[k]);
    const WideWords place = ((WideWords)y0 - above) * stride + ((WideWords)x0 + 1) * 8;
    __builtin_memcpy(l.place + i, &place, sizeof(place));
    l.inside |= bits_of(inside) << i;
    column += static_cast<float>(kWide);
  }
}

FASTVID_INLINE void add_pixel(const Landing& l, int i, int slot, float* sums) {
  const Quad w = load<Quad>(l.weights + 4 * slot), value = load<Quad>(l.values + 4 * slot);
  const Oct values = __builtin_shufflevector(value, value, 0, 1, 2, 3, 0, 1, 2, 3);
  float* place = sums + l.place[i];
  Oct left, right;
  __builtin_memcpy(&left, place, sizeof(left));
  __builtin_memcpy(&right, place + 8, sizeof(right));
  left += values * __builtin_shufflevector(w, w, 0, 0, 0, 0, 1, 1, 1, 1);
  right += values * __builtin_shufflevector(w, w, 2, 2, 2, 2, 3, 3, 3, 3);
  __builtin_memcpy(place, &left, sizeof(left));
  __builtin_memcpy(place + 8, &right, sizeof(right));
}

// What the next row needs: the caches see too many streams to fetch ahead in all of them.
template <class T>
FASTVID_INLINE void fetch(const T* segment) {
  constexpr int kLine = 64 / sizeof(T);
  for (int i = 0; i < kSegment; i += kLine) __builtin_prefetch(segment + i);
}

// Up to four channels that are summed together, the weights as the last where they are needed.
struct Group {
  int64_t first;
  int count;
  bool weights;
  float* sums;  // of the band
};

template <class T>
void add_segment(const Splat& s, int64_t y, int64_t x, int n, const Group& group, Landing& l) {
  const int64_t plane = s.height * s.width;
  const T* image = static_cast<const T*>(s.image) + group.first * plane + y * s.width + x;
  Row<T> rows[4];
  const T* channels[4];
  for (int c = 0; c < group.count; ++c) {
    fetch(image + c * plane + s.width);
    channels[c] = padded(image + c * plane, n, T{}, rows[c]);
  }
  const Wide rest = spread(group.weights ? 1.0f : 0.0f);
  for (int i = 0; i < kSegment; i += kWide) {
    Wide v[4];
    for (int c = 0; c < 4; ++c) v[c] = c < group.count ? widen(channels[c] + i) : rest;
    transpose(v);
    for (int k = 0; k < 4; ++k) store(l.values + 4 * i + k * kWide, v[k]);
  }
  if (l.inside == ~uint64_t{0}) {
    for (int i = 0; i < kSegment; i += kWide) {
#pragma GCC unroll 16
      for (int j = 0; j < kWide; ++j) add_pixel(l, i + j, i + slot_of(j), group.sums);
    }
    return;
  }
  for (uint64_t left = l.inside; left != 0; left &= left - 1) {
    const int i = __builtin_ctzll(left);
    add_pixel(l, i, slot_of(i), group.sums);
  }
}

// `scales` are made with the group that has the weights, and used by those after it.
template <class T>
void write_rows(const Splat& s, const Band& band, const Group& group, float* scales) {
  const int64_t plane = s.height * s.width;
  Row<T> rows[4];
  for (int64_t y = band.begin; y < band.end; ++y) {
    const float* above = group.sums + (y - band.begin) * band.stride + 8;
    T* out = static_cast<T*>(s.out) + group.first * plane + y * s.width;
    for (int64_t x = 0; x < s.width; x += kSegment, above += 8 * kSegment, scales += kSegment) {
      const int n = segment_size(s.width, x);
      for (int i = 0; i < kSegment; i += kWide) {
        Wide v[4];
        add_halves(above + 8 * i, above + band.stride + 8 * i, v);
        if (group.weights) {
          store(scales + i, (v[3] > kHole) | (v[3] < -kHole) ? 1.0f / v[3] : Wide{});
        }
        for (int c = 0; c < group.count; ++c) {
          const Wide value = s.normalise ? v[c] * load<Wide>(scales + i) : v[c];
          narrow((n == kSegment ? out + c * plane + x : rows[c].at) + i, value);
        }
      }
      for (int c = 0; c < group.count && n != kSegment; ++c) {
        __builtin_memcpy(out + c * plane + x, rows[c].at, static_cast<size_t>(n) * sizeof(T));
      }
    }
  }
}

using Land = void (*)(const Splat&, const Band&, int64_t, int64_t, int, Landing&);

template <class T>
void add_source(const Splat& s, const Band& band, const Group* groups, int count, Land land) {
  const int64_t segments = splat_segments(s.width);
  const auto misses = [&](const Reach& r) {
    return r.first >= band.end || r.last < band.begin - 1;
  };
  Landing l;
  for (int64_t y = 0; y < s.height; ++y) {
    const Reach* reach = s.reach + y * (segments + 1);
    if (misses(reach[0])) continue;
    for (int64_t i = 0; i < segments; ++i) {
      if (misses(reach[i + 1])) continue;
      const int64_t x = i * kSegment;
      const int n = segment_size(s.width, x);
      const float* next = s.flow + (y + 1) * s.width + x;
      fetch(next);
      fetch(next + s.height * s.width);
      if (s.weights != Splat::kOnes) fetch(s.metric + (y + 1) * s.width + x);
      land(s, band, y, x, n, l);
      if (l.inside == 0) continue;
      for (int k = 0; k < count; ++k) add_segment<T>(s, y, x, n, groups[k], l);
    }
  }
}

template <class T>
void fill_band(const Splat& s, const Band& band, Land land) {
  const int64_t most = splat_groups(s);
  Group groups[kSplatGroups];
  for (int64_t channel = 0; channel < s.channels;) {
    int count = 0;
    for (; count < most && channel < s.channels; ++count) {
      const bool weights = s.normalise && channel == 0;
      const int64_t room = weights ? 3 : 4, left = s.channels - channel;
      groups[count] = {channel, static_cast<int>(left < room ? left : room), weights,
                       band.sums + count * band.size()};
      channel += groups[count].count;
    }
    const int64_t floats = count * band.size();
    __builtin_memset(band.sums, 0, static_cast<size_t>(floats) * sizeof(float));
    add_source<T>(s, band, groups, count, land);
    for (int k = 0; k < count; ++k) {
      write_rows<T>(s, band, groups[k], band.sums + most * band.size());
    }
  }
}

float largest(const Wide& v) {
  float found = v[0];
  for (int k = 1; k < kWide; ++k) found = v[k] > found ? v[k] : found;
  return found;
}

// The rows that n pixels reach: rounded down, of those that land above the lower edge.
Reach reach_of(const float* v, float row, float bottom) {
  Wide low = spread(bottom), high = spread(-2.0f);
  for (int k = 0; k < kSegment; k += kWide) {
    const Wide py = row + load<Wide>(v + k);
    const WideInts inside = (py > -1.0f) & (py < bottom);
    low = inside & (py < low) ? py : low;
    high = inside & (py > high) ? py : high;
  }
  const WideInts first = floor_of(spread(-largest(-low))), last = floor_of(spread(largest(high)));
  return {first[0], last[0]};
}

}  // namespace

void splat_reach(const Splat& s, int64_t begin, int64_t end) {
  const int64_t segments = splat_segments(s.width);
  Row<float> row;
  for (int64_t y = begin; y < end; ++y) {
    Reach* reach = s.reach + y * (segments + 1);
    Reach whole{INT32_MAX, INT32_MIN};
    Wide highest = spread(-__FLT_MAX__);
    for (int64_t i = 0; i < segments; ++i) {
      const int64_t x = i * kSegment;
      const int n = segment_size(s.width, x);
      const Reach r = reach_of(padded(s.flow + (s.height + y) * s.width + x, n, row),
                               static_cast<float>(y), static_cast<float>(s.height));
      reach[i + 1] = r;
      whole.first = r.first < whole.first ? r.first : whole.first;
      whole.last = r.last > whole.last ? r.last : whole.last;
      if (s.weights != Splat::kSoftmax) continue;
      const float* metric = padded(s.metric + y * s.width + x, n, row);
      for (int k = 0; k < kSegment; k += kWide) {
        const Wide m = load<Wide>(metric + k);
        highest = is_finite(m) & (m > highest) ? m : highest;
      }
    }
    reach[0] = whole;
    if (s.weights == Splat::kSoftmax) s.highest[y] = largest(highest);
  }
}

void splat_band(const Splat& s, int64_t begin, int64_t end, float* scratch) {
  const Band band{begin, end, scratch, splat_stride(s.width)};
  const Land land_as = s.weights == Splat::kOnes     ? land<Splat::kOnes>
                       : s.weights == Splat::kLinear ? land<Splat::kLinear>
                                                     : land<Splat::kSoftmax>;
  if (s.dtype == DType::kFloat16) {
    fill_band<Half>(s, band, land_as);
  } else if (s.dtype == DType::kBFloat16) {
    fill_band<BFloat16>(s, band, land_as);
  } else {
    fill_band<float>(s, band, land_as);
  }
}

}  // namespace fastvid::cpu::FASTVID_ISA
