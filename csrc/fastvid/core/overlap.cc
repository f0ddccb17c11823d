#include "fastvid/core/overlap.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace fastvid {
namespace {

struct Axis {
  int64_t stride;
  int64_t low, high;  // of the difference of the two arrays' indices
};

// Fills in the common axes, outermost stride first, and says whether the two share their strides
// and none of the axes reaches into the next.
bool common_axes(const Tensor& a, const Tensor& b, Axis* axes) {
  const int rank = a.shape.rank();
  if (rank != b.shape.rank() || a.dtype != b.dtype) return false;
  for (int i = 0; i < rank; ++i) {
    if (a.dim(i) > 1 && b.dim(i) > 1 && a.strides[i] != b.strides[i]) return false;
    axes[i] = {a.dim(i) > 1 ? a.strides[i] : b.strides[i], 1 - b.dim(i), a.dim(i) - 1};
  }
  // Not std::sort, of which GCC 12 believes that it leaves so small an array.
  for (int i = 1; i < rank; ++i) {
    for (int j = i; j > 0 && axes[j - 1].stride < axes[j].stride; --j) {
      std::swap(axes[j - 1], axes[j]);
    }
  }
  int64_t reach = 0;
  for (int i = rank - 1; i >= 0; --i) {
    const int64_t span = std::max(-axes[i].low, axes[i].high);
    if (span > 0 && axes[i].stride <= reach) return false;
    reach += span * axes[i].stride;
  }
  return true;
}

// Whether `distance` is a sum of strides times differences that occur. An axis's stride is larger
// than all the inner ones can reach together, so only the two nearest multiples can do.
bool reachable(const Axis* axes, int rank, int64_t distance) {
  if (rank == 0) return distance == 0;
  const Axis& axis = axes[0];
  if (axis.low == 0 && axis.high == 0) return reachable(axes + 1, rank - 1, distance);
  const int64_t nearest = distance / axis.stride;
  for (int64_t d = nearest - 1; d <= nearest + 1; ++d) {
    if (d < axis.low || d > axis.high) continue;
    if (reachable(axes + 1, rank - 1, distance - d * axis.stride)) return true;
  }
  return false;
}

}  // namespace

bool may_overlap(const Tensor& a, const Tensor& b) {
  const auto first = reinterpret_cast<uintptr_t>(a.data);
  const auto second = reinterpret_cast<uintptr_t>(b.data);
  if (first >= second + b.extent() || second >= first + a.extent()) return false;
  Axis axes[Shape::kMaxRank];
  const auto bytes = static_cast<int64_t>(second) - static_cast<int64_t>(first);
  const auto size = static_cast<int64_t>(dtype_size(a.dtype));
  if (!common_axes(a, b, axes) || bytes % size != 0) return true;
  return reachable(axes, a.shape.rank(), bytes / size);
}

bool same_elements(const Tensor& a, const Tensor& b) {
  if (a.data != b.data || a.dtype != b.dtype || !(a.shape == b.shape)) return false;
  for (int i = 0; i < a.shape.rank(); ++i) {
    if (a.dim(i) > 1 && a.strides[i] != b.strides[i]) return false;
  }
  return true;
}

}  // namespace fastvid
