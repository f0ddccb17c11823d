// CUDA launcher of ops/inverse_search.h. It assumes valid shapes and works on `stream` without
// waiting; its workspace comes from the device's memory pool, in stream order.
#pragma once

#include "fastvid/ops/inverse_search.h"

namespace fastvid::cuda {

void inverse_search(const Tensor& luma0, const Tensor& luma1, const Tensor& flow01,
                    const Tensor& flow10, const InverseSearchOptions& options, void* stream);

}  // namespace fastvid::cuda
