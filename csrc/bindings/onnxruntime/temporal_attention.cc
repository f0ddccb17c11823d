#include "fastvid/ops/temporal_attention.h"

#include <cmath>
#include <limits>

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

constexpr float kNoScale = std::numeric_limits<float>::quiet_NaN();

// Attributes `scale`: D^-0.5 where absent; `causal`: 1 for a causal mask.
const Op kTemporalAttention{
    {.name = "TemporalAttention",
     .inputs =
         {{"q", kAnyDType}, {"k", kAnyDType}, {"v", kAnyDType}, {"bias", DType::kFloat32, true}},
     .outputs = {{.dtype = kAnyDType, .rank = 5}},
     .attributes = {{"scale", kNoScale}, {"causal", 0}},
     .compute = [](const Call& call) {
       TemporalAttentionArgs args{.q = call.input(0),
                                  .k = call.input(1),
                                  .v = call.input(2),
                                  .bias = call.input(3),
                                  .causal = call.integer("causal") != 0};
       if (const float scale = call.number("scale"); !std::isnan(scale)) args.scale = scale;
       temporal_attention(args, call.output(temporal_attention_output(args)), call.executor());
     }}};

}  // namespace
}  // namespace fastvid::onnxruntime
