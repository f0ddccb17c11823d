#include "fastvid/ops/attention.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

// Attributes: `causal` 1 for keys up to the query's own place only; `scale`, 0 for 1 / sqrt(D).
const Op kAttention{{.name = "Attention",
                     .inputs = {{"q", kAnyDType},
                                {"k", kAnyDType},
                                {"v", kAnyDType},
                                {.name = "bias", .dtype = DType::kFloat32, .optional = true}},
                     .outputs = {{kAnyDType}},
                     .attributes = {{"causal", 0}, {"scale", 0.0f}},
                     .compute = [](const Call& call) {
                       AttentionArgs args{.q = call.input(0),
                                          .k = call.input(1),
                                          .v = call.input(2),
                                          .bias = call.input(3),
                                          .causal = call.integer("causal") != 0};
                       if (const float scale = call.number("scale"); scale != 0.0f) {
                         args.scale = scale;
                       }
                       attention(args, call.output(attention_output(args)), call.executor());
                     }}};

}  // namespace
}  // namespace fastvid::onnxruntime
