// Whether two strided arrays have an element in common.
#pragma once

#include "fastvid/core/tensor.h"

namespace fastvid {

// False only where no byte is shared: exact for two views of one buffer with the same strides, such
// as the q, k and v of packed projections; elsewhere any meeting of their extents counts.
bool may_overlap(const Tensor& a, const Tensor& b);

// Whether both are the very same elements in the same order.
bool same_elements(const Tensor& a, const Tensor& b);

}  // namespace fastvid
