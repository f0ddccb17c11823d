#include "fastvid/ops/randn.h"

#include "fastvid/core/isa.h"
#include "fastvid/cpu/randn.h"
#include "fastvid/cuda/randn.h"

namespace fastvid {
namespace {

// Elements of one task, whole blocks of four: enough work to outweigh handing it over.
constexpr int64_t kGrain = 1 << 15;

}  // namespace

void randn(const Tensor& out, const Noise& noise, const Executor& executor) {
  constexpr const char* op = "randn";
  require_dtype(op, out, DType::kFloat32);
  if (on_cuda(op, {&out})) {
    cuda::randn(out, noise, executor.cuda_stream());
    return;
  }
  const auto kernel = FASTVID_BY_ISA(randn);
  for_rows(executor, out.shape.elements(), kGrain, [&](int64_t begin, int64_t end) {
    kernel(noise, noise.offset + static_cast<uint64_t>(begin), end - begin,
           out.as<float>() + begin);
  });
}

}  // namespace fastvid
