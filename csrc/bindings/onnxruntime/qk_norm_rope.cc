#include "fastvid/ops/qk_norm_rope.h"

#include "fastvid/core/error.h"
#include "op.h"

namespace fastvid::onnxruntime {
namespace {

[[noreturn]] void refuse(const char* attribute, const char* allowed, const std::string& value) {
  throw InputError(std::string("qk_norm_rope: ") + attribute + " must be one of " + allowed +
                   ", got " + value);
}

QkNorm norm_of(const std::string& name) {
  if (name == "none") return QkNorm::kNone;
  if (name == "head") return QkNorm::kHead;
  if (name == "full") return QkNorm::kFull;
  refuse("norm", "none, head, full", name);
}

Rope rope_of(const std::string& name) {
  if (name == "none") return Rope::kNone;
  if (name == "interleaved") return Rope::kInterleaved;
  if (name == "half") return Rope::kHalf;
  refuse("rope", "none, interleaved, half", name);
}

const Op kQkNormRope{{.name = "QkNormRope",
                      .inputs = {{"q", kAnyDType},
                                 {"k", kAnyDType},
                                 {.name = "q_weight", .dtype = DType::kFloat32, .optional = true},
                                 {.name = "k_weight", .dtype = DType::kFloat32, .optional = true},
                                 {.name = "cos", .dtype = DType::kFloat32, .optional = true},
                                 {.name = "sin", .dtype = DType::kFloat32, .optional = true}},
                      .outputs = {{kAnyDType}, {.dtype = kAnyDType, .like = 1}},
                      .attributes = {{"norm", "full"}, {"rope", "interleaved"}, {"eps", 1e-6f}},
                      .compute = [](const Call& call) {
                        const QkNormRopeArgs args{.q = call.input(0),
                                                  .k = call.input(1),
                                                  .q_weight = call.input(2),
                                                  .k_weight = call.input(3),
                                                  .cos = call.input(4),
                                                  .sin = call.input(5),
                                                  .norm = norm_of(call.text("norm")),
                                                  .rope = rope_of(call.text("rope")),
                                                  .eps = call.number("eps")};
                        const QkNormRopeOutputs expected = qk_norm_rope_outputs(args);
                        qk_norm_rope(args, call.output(expected.q, 0), call.output(expected.k, 1),
                                     call.executor());
                      }}};

}  // namespace
}  // namespace fastvid::onnxruntime
