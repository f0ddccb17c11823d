#include "fastvid/ops/luma.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

const Op kRgbToLuma{{.name = "RgbToLuma",
                     .inputs = {{"frames", DType::kUint8}},
                     .outputs = {{DType::kFloat32}, {DType::kFloat32}},
                     .compute = [](const Call& call) {
                       const Tensor frames = call.input(0);
                       const LumaTensors expected = rgb_to_luma_output(frames);
                       const LumaTensors out{call.output(expected.luma, 0),
                                             call.output(expected.chroma, 1)};
                       rgb_to_luma(frames, out, call.executor());
                     }}};

const Op kLumaToRgb{{.name = "LumaToRgb",
                     .inputs = {{"luma", DType::kFloat32}, {"chroma", DType::kFloat32}},
                     .outputs = {{DType::kUint8}},
                     .compute = [](const Call& call) {
                       const LumaTensors in{call.input(0), call.input(1)};
                       const Tensor out = call.output(luma_to_rgb_output(in));
                       luma_to_rgb(in, out, call.executor());
                     }}};

}  // namespace
}  // namespace fastvid::onnxruntime
